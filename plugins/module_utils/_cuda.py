# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the CUDA driver says about the GPUs, asked through its C API. Makes no context, computes nothing.

Functions, error codes and attributes: "CUDA Driver API", chapters Error Handling, Initialization,
Version Management and Device Management; the numbers are those of cuda.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libcuda.so.1"
"""The name under which NVIDIA's driver installs the API, found by the dynamic linker."""

# CUresult, CUdevice and CUdevice_attribute are int; every function returns a CUresult.
_INT = ctypes.c_int
_INT_OUT = ctypes.POINTER(ctypes.c_int)
_TEXT_OUT = ctypes.POINTER(ctypes.c_char_p)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuGetErrorName": (_INT, _TEXT_OUT),
    "cuGetErrorString": (_INT, _TEXT_OUT),
    "cuDriverGetVersion": (_INT_OUT,),
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGetCount": (_INT_OUT,),
    "cuDeviceGet": (_INT_OUT, _INT),
    "cuDeviceGetName": (ctypes.c_char_p, _INT, _INT),
    "cuDeviceGetAttribute": (_INT_OUT, _INT, _INT),
}
_SUCCESS = 0
_NAME_BYTES = 256

# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
_MAJOR, _MINOR = 75, 76
# Our names of further attributes; the sizes are in bytes.
ATTRIBUTES = {
    "multiprocessors": 16,  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    "shared_memory_per_block": 8,  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK
    "shared_memory_per_block_optin": 97,  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    "shared_memory_per_multiprocessor": 81,  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
}

_NO_LIBRARY = "Install NVIDIA's driver on the node; if it is there, `ldconfig -p | grep libcuda` shows it."
_OLD_LIBRARY = "Update NVIDIA's driver on the node."
_REFUSED = "See whether `nvidia-smi` works on the node and what `dmesg | grep NVRM` says."
_NO_DEVICE = "See whether `nvidia-smi -L` lists a GPU and whether CUDA_VISIBLE_DEVICES hides it."


class CudaError(Exception):
    """The driver can't answer: problem says why, mend what to do."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.mend = mend


def version_text(number: int) -> str:
    """A CUDA version, which the API gives as 1000 * major + 10 * minor, as people write it."""
    return f"{number // 1000}.{number % 1000 // 10}"


class Driver:
    """The loaded library: methods by the names of the functions that they call, errors as CudaError."""

    def __init__(self, library: str) -> None:
        try:
            loaded = ctypes.CDLL(library)
        except OSError as trouble:
            raise CudaError(f"the CUDA driver can't be loaded: {trouble}", _NO_LIBRARY) from None
        self._functions: dict[str, Any] = {}
        for name, types in _SIGNATURES.items():
            try:
                function = getattr(loaded, name)
            except AttributeError:
                raise CudaError(f"{library} has no function {name}", _OLD_LIBRARY) from None
            function.argtypes, function.restype = types, _INT
            self._functions[name] = function

    def _error(self, code: int) -> str:
        """The error as the driver words it: "CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device ..."."""
        texts = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = ctypes.c_char_p()
            self._functions[function](code, ctypes.byref(text))
            texts.append((text.value or b"").decode("utf-8", "replace"))
        name, description = texts
        # The driver names no error that is newer than itself.
        return f"{name} ({code}): {description}" if name else f"error {code}, which the driver has no name for"

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._functions[name](*arguments)
        if code != _SUCCESS:
            raise CudaError(f"{name} answers {self._error(code)}", _REFUSED)

    def _number(self, name: str, *arguments: int) -> int:
        """Call a function whose first argument is where its answer goes."""
        answer = ctypes.c_int()
        self._call(name, ctypes.byref(answer), *arguments)
        return answer.value

    def version(self) -> str | None:
        """The newest CUDA that the driver supports ("13.0"), None if it doesn't tell. Needs no init()."""
        try:
            return version_text(self._number("cuDriverGetVersion"))
        except CudaError:
            return None

    def init(self) -> None:
        """Initialize the API; every question about devices needs that first."""
        self._call("cuInit", 0)

    def count(self) -> int:
        """The number of devices."""
        return self._number("cuDeviceGetCount")

    def device(self, index: int) -> dict[str, Any]:
        """One device: its index, name, compute capability ("12.1") and ATTRIBUTES."""
        handle = self._number("cuDeviceGet", index)
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", name, _NAME_BYTES, handle)
        major, minor = (self._number("cuDeviceGetAttribute", number, handle) for number in (_MAJOR, _MINOR))
        return {
            "index": index,
            "name": name.value.decode("utf-8", "replace"),
            "compute_capability": f"{major}.{minor}",
            **{key: self._number("cuDeviceGetAttribute", number, handle) for key, number in ATTRIBUTES.items()},
        }


def read(library: str = LIBRARY) -> dict[str, Any]:
    """All devices of this machine, or why there are none: available, problem, mend, cuda_version, devices.

    library: name or path of the driver's API. problem and mend are None where available is True; devices is
    complete or empty, as a list that lacks the GPU in trouble would pass for one of a sound machine.
    """
    facts: dict[str, Any] = {"available": False, "problem": None, "mend": None, "cuda_version": None, "devices": []}
    try:
        driver = Driver(library)
        facts["cuda_version"] = driver.version()
        driver.init()
        devices = [driver.device(index) for index in range(driver.count())]
        if not devices:
            raise CudaError("the CUDA driver knows no device", _NO_DEVICE)
    except CudaError as trouble:
        return {**facts, "problem": trouble.problem, "mend": trouble.mend}
    return {**facts, "available": True, "devices": devices}
