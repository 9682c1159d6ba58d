"""The image that is served: the real SGLang on CPU, put layer by layer into the registry.

No engine on the host has a part in it: layers are archives, and an image is a list of their
digests.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab import containers, layers, rootfs, services, state
from lab.host import detect
from lab.layers import Layer
from lab.layout import IMAGE, IMAGE_NAME, IMAGE_TAG, LABEL, NAMESPACE, REGISTRY
from lab.registry import Repository
from lab.run import LabError, attempt, contained, run, say

_FOLDER = state.SOURCE / "image"
_REQUIREMENTS = _FOLDER / "requirements.txt"
_SHIM_FILES = (_FOLDER / "sitecustomize.py", _FOLDER / "gb10_kernel.py")
# Debian 12's Python, and where it looks for packages.
_PYTHON = "3.11"
_PACKAGES = f"usr/local/lib/python{_PYTHON}/dist-packages"
_BUILD = f"{NAMESPACE}-build"
_SHIM = "opt/sglang-cpu"
_MANYLINUX = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# Kept for building and testing torch itself; nothing that runs reads them.
_UNUSED = (
    "bin",
    "torch/bin/test_*",
    "torch/bin/*Test",
    "torch/bin/protoc*",
    "torch/include",
    "torch/test",
    "torch/share",
    "torch/lib/*.a",
    "jedi/third_party",
    "numpy/**/tests",
    "sympy/**/tests",
    "networkx/**/tests",
)
# Worth the trouble of stripping: the symbol table of libtorch_cpu alone is 90 MB.
_STRIP_OVER = 10_000_000
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": f"/{_SHIM}",
    "SGLANG_USE_CPU_ENGINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
# Loading these loads nearly all that a server loads: it proves that the image is whole, and leaves
# compiled files.
_PROBE = """
import sglang.launch_server, sglang.srt.entrypoints.http_server, sglang.srt.managers.scheduler
import sglang.srt.managers.detokenizer_manager, huggingface_hub
import transformers.models.auto.modeling_auto
from sglang.srt.models.glm4_moe import Glm4MoeForCausalLM
from sglang.srt.models.registry import ModelRegistry
"""


def _install(target: Path) -> None:
    """Install the pinned packages for the image's Python, whatever Python runs here."""
    machine = platform.machine()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--no-deps",
        "--require-hashes",
    ]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}"]
    command += [f"--platform=manylinux_{version}_{machine}" for version in _MANYLINUX]
    command += [f"--platform=manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
    command += [
        f"--target={target}",
        f"--cache-dir={state.cache() / 'pip'}",
        f"--requirement={_REQUIREMENTS}",
    ]
    index = os.environ.get("LAB_TORCH_INDEX")
    first = ["--extra-index-url", index] if index else []
    environment = ["env", f"TMPDIR={state.scratch()}"]
    result = attempt([*environment, *contained([*command, *first])])
    if result.returncode and not index and "torch==" in result.stderr:
        say(f"no CPU build of torch among pip's own sources; asking {_TORCH_INDEX} ...")
        shutil.rmtree(target, ignore_errors=True)
        result = attempt([*environment, *contained([*command, "--extra-index-url", _TORCH_INDEX])])
    if result.returncode:
        raise LabError(
            "pip can't install the image's packages (LAB_TORCH_INDEX: another source of torch):\n  "
            + "\n  ".join(result.stderr.strip().splitlines()[-6:])
        )


def _trim(target: Path) -> None:
    for pattern in _UNUSED:
        for path in target.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    big = [path for path in target.glob("torch/lib/*.so*") if path.stat().st_size > _STRIP_OVER]
    run(["strip", "--strip-unneeded", *(str(path) for path in big)])


def _compile(target: Path, base_image: str) -> None:
    """Load what a server loads, so that its compiled files are there before four ranks want them.

    The files are valid for their source's time and size, as pip's are: a patched source in its
    place is compiled anew.
    """
    layers.freeze_times(target)
    environment = [flag for name, value in ENVIRONMENT.items() for flag in ("--env", f"{name}={value}")]
    mounts = [f"--volume={target}:/{_PACKAGES}", f"--volume={_FOLDER}:/{_SHIM}:ro"]
    command = [
        "podman",
        "--runtime=runc",
        "run",
        "--rm",
        "--network=none",
        f"--name={_BUILD}",
        f"--label={LABEL}=build",
    ]
    containers.remove([_BUILD])
    run(
        [
            *command,
            *detect().container_flags(),
            *environment,
            *mounts,
            base_image,
            "python3",
            "-c",
            _PROBE,
        ]
    )


def _base_layer(base_image: str, archive: Path) -> Layer:
    root = Path(run(["podman", "image", "mount", base_image]).strip())
    try:
        return layers.pack({".": root}, archive)
    finally:
        rootfs.unmount(base_image)


def _package_layers(base_image: str, archives: list[Path]) -> list[Layer]:
    """Two layers, so that two cores can pack and unpack them: torch, and all the rest."""
    target = state.scratch() / "packages"
    say("installing SGLang and its packages ...")
    _install(target)
    _trim(target)
    say("loading SGLang once ...")
    _compile(target, base_image)
    say("packing the layers ...")
    torch = {f"{_PACKAGES}/torch": target / "torch"}
    rest = {f"{_PACKAGES}/{path.name}": path for path in target.iterdir() if path.name != "torch"}
    with ProcessPoolExecutor(max_workers=2) as pool:
        packed = list(pool.map(_pack_packages, (torch, rest), archives))
    shutil.rmtree(target)
    return packed


def _pack_packages(sources: dict[str, Path], archive: Path) -> Layer:
    return layers.pack(sources, archive, owned_by_root=True)


class _Store:
    """Remembers which layers were made from which inputs; makes those that the registry lacks."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._folder = state.cache() / "layers"
        self._folder.mkdir(parents=True, exist_ok=True)

    def ensure(self, key: str, count: int, make: Callable[[list[Path]], list[Layer]]) -> list[Layer]:
        record = self._folder / f"{key}.json"
        if record.exists():
            known = [Layer(**entry) for entry in json.loads(record.read_text())]
            if all(self._repository.has_blob(layer.digest) for layer in known):
                return known
        archives = [state.scratch() / f"{key}-{number}.tar.gz" for number in range(count)]
        made = make(archives)
        for layer, archive in zip(made, archives, strict=True):
            self._repository.put_file(layer, archive)
            archive.unlink()
        unfinished = record.with_suffix(".new")
        unfinished.write_text(json.dumps([asdict(layer) for layer in made]))
        unfinished.rename(record)
        return made


def _configuration() -> dict[str, Any]:
    return {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2025-01-01T00:00:00Z",
        "config": {
            "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "Cmd": ["python3"],
        },
        "history": [],
    }


def ensure(base_image: str) -> None:
    """Put the image into the registry, making only those layers that it lacks."""
    repository = Repository(REGISTRY, IMAGE_NAME)
    store = _Store(repository)
    base = store.ensure(state.key("base", base_image), 1, lambda archives: [_base_layer(base_image, archives[0])])
    recipe = (_PROBE, *_UNUSED, str(sorted(ENVIRONMENT.items())))
    packages = store.ensure(
        state.key("packages", base_image, *recipe, _REQUIREMENTS, *_SHIM_FILES),
        2,
        lambda archives: _package_layers(base_image, archives),
    )
    shim = store.ensure(
        state.key("shim", *_SHIM_FILES),
        1,
        lambda archives: [_pack_packages({f"{_SHIM}/{file.name}": file for file in _SHIM_FILES}, archives[0])],
    )
    wanted = [*base, *packages, *shim]
    if repository.put_image(IMAGE_TAG, wanted, _configuration()):
        say(f"published {IMAGE}")
        services.collect_garbage()
