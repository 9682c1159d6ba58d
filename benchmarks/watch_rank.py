"""Runs on a node: waits for the next start of the rank's unit and for its first healthy answer.

Arguments: the URL of /health, and after how many seconds to give up. Prints one JSON object with
the Unix times `started` (the unit's main process) and `healthy` (first HTTP 200), in seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request

UNIT = "sglang-rank.service"
# Short against the seconds that are measured, long against the cost of asking.
INTERVAL = 0.2


def started_after(moment: float) -> float | None:
    """Return when the unit's main process started, if that was after `moment` (Unix times)."""
    # The monotonic clock is the one that systemd gives in microseconds without a time zone.
    shown = subprocess.run(
        ["systemctl", "show", UNIT, "--property=ExecMainStartTimestampMonotonic,MainPID"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.split("=", 1) for line in shown.split())
    started = int(values["ExecMainStartTimestampMonotonic"]) / 1e6 - time.monotonic() + time.time()
    return started if int(values["MainPID"]) and started > moment else None


def healthy(url: str) -> bool:
    """Tell whether the rank answers 200 now."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=30) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def main() -> int:
    """Watch once."""
    url, limit = sys.argv[1], float(sys.argv[2])
    began = time.time()
    while time.time() - began < limit:
        started = started_after(began)
        # Health counts only after a new start: the rank that is about to be stopped is healthy too.
        if started is not None and healthy(url):
            print(json.dumps({"started": started, "healthy": time.time()}))
            return 0
        time.sleep(INTERVAL)
    print(f"no start and healthy answer of {UNIT} within {limit:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
