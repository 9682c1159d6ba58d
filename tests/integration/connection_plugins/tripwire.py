# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A way to hosts that leads nowhere, and notes who tries it: the file that TRIPWIRE names gets a line each time."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: tripwire
short_description: notes whoever wants to reach a host
description: For tests; never connects.
author: dgx_spark.sglang contributors
options: {}
"""


class Connection(ConnectionBase):  # type: ignore[misc]
    """Whatever is asked of it is a touch of the host."""

    transport = "tripwire"
    has_pipelining = True

    def _tell(self) -> None:
        with open(os.environ["TRIPWIRE"], "a", encoding="utf-8") as file:
            file.write(f"{self._play_context.remote_addr}\n")
        raise AnsibleConnectionFailure("the tripwire: this host was touched")

    def _connect(self) -> None:
        self._tell()

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> Any:
        """Tell, and fail."""
        self._tell()

    def put_file(self, in_path: str, out_path: str) -> None:
        """Tell, and fail."""
        self._tell()

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Tell, and fail."""
        self._tell()

    def close(self) -> None:
        """There is nothing to close."""
