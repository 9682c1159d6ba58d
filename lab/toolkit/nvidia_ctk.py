#!/usr/bin/python3
"""A stand-in for nvidia-ctk: what NVIDIA documents of `cdi generate`, `cdi list`, `runtime configure` and `--version`.

There is one GPU where the driver's libcuda.so.1 lies under the driver's root (NVIDIA_CTK_DRIVER_ROOT, / by default);
the lab's nodes have a stand-in of that too. Its log goes to stderr, as the real one's does. What it writes has the form
of the real thing; the devices in it are none that a container could use.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

VERSION = "1.19.0"
KIND = "nvidia.com/gpu"
SPEC_DIRS = ["/etc/cdi", "/var/run/cdi"]
UUID = "GPU-00000000-0000-0000-0000-00000000000b"


class TroubleError(Exception):
    """What ends it with exit code 1."""


def log(level: str, text: str) -> None:
    """A line as logrus writes it without a terminal."""
    print(f'time="2026-01-01T00:00:00Z" level={level} msg={json.dumps(text)}', file=sys.stderr)


def specification() -> dict[str, Any]:
    """The CDI specification of the one GPU: by index, by UUID, and all of them."""
    root = Path(os.environ.get("NVIDIA_CTK_DRIVER_ROOT", "/"))
    found = sorted(root.glob("usr/lib/*/libcuda.so.1"))
    if not found:
        raise TroubleError("failed to generate CDI spec: failed to create CDI library: failed to locate libcuda.so")
    library = f"/{found[0].relative_to(root)}"
    nodes = {"deviceNodes": [{"path": "/dev/nvidia0"}]}
    mounts = [{"containerPath": library, "hostPath": str(found[0]), "options": ["ro", "nosuid", "nodev", "rbind"]}]
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": [{"name": name, "containerEdits": nodes} for name in ("0", UUID, "all")],
        "containerEdits": {"deviceNodes": [{"path": "/dev/nvidiactl"}], "mounts": mounts},
    }


def yaml(value: Any, indent: str = "") -> str:
    """A value as block YAML."""
    lines = []
    pairs = value.items() if isinstance(value, dict) else [("-", item) for item in value]
    for key, item in pairs:
        head = f"{indent}{key}" if key == "-" else f"{indent}{key}:"
        if isinstance(item, (dict, list)):
            lines.append(f"{head}\n{yaml(item, indent + '    ')}")
        else:
            lines.append(f"{head} {json.dumps(item)}\n")
    return "".join(lines)


def generate(words: argparse.Namespace) -> None:
    """Write the specification."""
    log("info", 'Auto-detected mode as "nvml"')
    output = words.output if words.output is not None else os.environ.get("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", "")
    as_json = words.format == "json" or output.endswith(".json")
    text = json.dumps(specification()) + "\n" if as_json else f"---\n{yaml(specification())}"
    if not output:
        sys.stdout.write(text)
    else:
        path = Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}")
        fresh.write_text(text)
        fresh.replace(path)
    log("info", "Generated CDI spec with version 0.5.0")


def list_devices(words: argparse.Namespace) -> None:
    """Print the devices of all specifications."""
    devices = []
    for folder in words.spec_dir or SPEC_DIRS:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix in (".json", ".yaml"):
                text = path.read_text()
                kind = re.search(r'"?kind"?: "?([\w./-]+)', text)
                names = re.findall(r'"?\bname"?: "?([\w.:-]+)', text)
                devices += [f"{kind[1]}={name}" for name in names] if kind else []
    log("info", f"Found {len(devices)} CDI devices")
    print("".join(f"{name}\n" for name in sorted(set(devices))), end="")


def configure(words: argparse.Namespace) -> None:
    """Add the runtime to the engine's configuration; of engines only Docker is known here."""
    if words.runtime != "docker":
        raise TroubleError(f"unrecognized runtime '{words.runtime}'")
    path = Path(words.config or "/etc/docker/daemon.json")
    config: dict[str, Any] = json.loads(path.read_text()) if path.exists() and path.read_text().strip() else {}
    config.setdefault("runtimes", {})["nvidia"] = {"args": [], "path": "nvidia-container-runtime"}
    if words.set_as_default:
        config["default-runtime"] = "nvidia"
    if words.cdi_enabled:
        config.setdefault("features", {})["cdi"] = True
    text = json.dumps(config, indent=4, sort_keys=True)
    if words.dry_run:
        sys.stdout.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    log("info", f"Wrote updated config to {path}")
    log("info", "It is recommended that docker daemon be restarted.")


def parser() -> argparse.ArgumentParser:
    """The command line, as far as it is known here."""
    top = argparse.ArgumentParser(prog="nvidia-ctk", allow_abbrev=False)
    top.add_argument("--version", action="store_true")
    top.add_argument("--quiet", "-q", action="store_true")
    commands = top.add_subparsers(dest="command")
    cdi = commands.add_parser("cdi").add_subparsers(dest="subcommand", required=True)
    made = cdi.add_parser("generate")
    made.add_argument("--output")
    made.add_argument("--format", choices=["json", "yaml"])
    made.set_defaults(run=generate)
    listed = cdi.add_parser("list")
    listed.add_argument("--spec-dir", action="append")
    listed.set_defaults(run=list_devices)
    runtime = commands.add_parser("runtime").add_subparsers(dest="subcommand", required=True)
    set_up = runtime.add_parser("configure")
    set_up.add_argument("--runtime", default="docker")
    set_up.add_argument("--config")
    set_up.add_argument("--dry-run", action="store_true")
    set_up.add_argument("--nvidia-set-as-default", "--set-as-default", dest="set_as_default", action="store_true")
    set_up.add_argument("--cdi.enabled", "--enable-cdi", dest="cdi_enabled", action="store_true")
    set_up.set_defaults(run=configure)
    return top


def main() -> int:
    """Do what is asked."""
    words = parser().parse_args()
    if words.version:
        print(f"NVIDIA Container Toolkit CLI version {VERSION}\ncommit: stand-in")
        return 0
    if not words.command:
        parser().print_help()
        return 0
    try:
        words.run(words)
    except (TroubleError, ValueError, OSError) as trouble:
        log("error", str(trouble))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
