"""Writes and checks configs of SGLang's fused-MoE kernel, offline: no GPU, no torch, no SGLang installation.

Our collection is imported by its own name, also where nothing put it on the path: `python -m kernel_configs`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if str(ROOT / ".collections") not in sys.path:
    sys.path.insert(0, str(ROOT / ".collections"))
