"""Keep what is compiled of modules in zip archives, which Python itself never does.

Each Ansible task brings its modules in such an archive, and to compile them takes a second on an emulated processor.
What is kept counts for the same source only.
"""

from __future__ import annotations

import _imp
import marshal
import os
import zipimport
from types import CodeType

_FOLDER = "/var/cache/lab-compiled"
_HASH_KEY = 0x6C6162
_compile = vars(zipimport)["_compile_source"]


def _kept(path: str) -> CodeType | None:
    try:
        with open(path, "rb") as file:
            code = marshal.loads(file.read())
    except (OSError, EOFError, ValueError, TypeError):
        return None
    return code if isinstance(code, CodeType) else None


def _compile_once(pathname: str, source: bytes) -> CodeType:
    path = f"{_FOLDER}/{_imp.source_hash(_HASH_KEY, source).hex()}-{len(source)}"
    code: CodeType | None = _kept(path)
    if code is None:
        code = _compile(pathname, source)
        try:
            with open(f"{path}.{os.getpid()}", "wb") as file:
                file.write(marshal.dumps(code))
            os.rename(file.name, path)
        except OSError:  # of another user's making, or no room: then it is compiled again
            return code
    return code


vars(zipimport)["_compile_source"] = _compile_once
