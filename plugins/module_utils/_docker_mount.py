# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Docker's --mount, for files whose names hold commas."""

from __future__ import annotations

import csv
import io


def mount_value(source: str, target: str) -> str:
    """The value of `docker run`'s --mount for one read-only file: a line of CSV.

    Without its source --mount fails, where --volume would make a directory of that name.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={source}", f"target={target}", "readonly"])
    return line.getvalue()
