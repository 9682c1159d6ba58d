# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Whether a new process in a container of the image sees a GPU; runs there, by the gates and by the supervisor."""

import ctypes
import shutil
import subprocess
import sys

if shutil.which("nvidia-smi"):
    done = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    sys.exit(done.returncode or "GPU " not in done.stdout)
# An image may come without it, and a container is given it only with the capability "utility".
cuda = ctypes.CDLL("libcuda.so.1")
count = ctypes.c_int()
code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
print(f"CUDA: code {code}, number of GPUs {count.value}")
sys.exit(code or not count.value)
