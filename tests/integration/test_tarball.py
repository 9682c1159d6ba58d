"""The collection as others get it: built, installed from the tarball, run by its full name."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PLAYBOOK = "dgx_spark.sglang.site"
# What a user of the tarball needs, and what only a checkout needs.
WANTED = {
    "LICENSE",
    "README.md",
    "meta/runtime.yml",
    "models/glm-4.7-fp8.yml",
    "playbooks/site.yml",
}
WANTED_FOLDERS = {"files", "models", "playbooks", "plugins", "roles"}
UNWANTED = {"benchmarks", "dev", "kernel_configs", "lab", "molecule", "requirements", "tests", "__pycache__"}
# A cluster whose rails and rank are wrong: the finding must come from the first role.
BROKEN = """\
sparks:
  hosts:
    spark-a:
      cluster_rank: 0
    spark-b:
      cluster_rank: 0
  vars:
    ansible_host: 198.18.255.254
    cluster_model: no-such-model
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of .venv's commands away from the checkout, with no settings but the given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=cwd,
        env={**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the collection."""
    folder = tmp_path_factory.mktemp("built")
    built = run("ansible-galaxy", "collection", "build", "--output-path", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("dgx_spark-sglang-*.tar.gz")
    return path


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the tarball without a network; returns the collections path."""
    folder = tmp_path_factory.mktemp("collections")
    done = run("ansible-galaxy", "collection", "install", "--offline", "-p", folder, tarball, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_tarball_holds_the_product_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    parts = {part for name in names for part in PurePosixPath(name).parts}
    assert set(names) >= WANTED
    assert {PurePosixPath(name).parts[0] for name in names} >= WANTED_FOLDERS
    assert not parts & UNWANTED
    assert not [part for part in parts if part.startswith(".")]
    committed = {path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir()}
    assert {PurePosixPath(name).parts[1] for name in names if name.startswith("roles/")} >= committed


def test_site_is_found_by_its_full_name(installed: Path) -> None:
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    checked = run(
        "ansible-playbook",
        "-i",
        "localhost,",
        PLAYBOOK,
        "--syntax-check",
        cwd=installed,
        **environment,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert str(installed) in checked.stdout


def test_a_broken_inventory_ends_before_any_host_is_touched(installed: Path) -> None:
    inventory = installed / "hosts.yml"
    inventory.write_text(BROKEN)
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    result = run("ansible-playbook", "-i", inventory, PLAYBOOK, cwd=installed, **environment)
    output = result.stdout + result.stderr
    assert result.returncode != 0, output
    # Both findings at once, and nobody tried to log in.
    assert "no-such-model" in output, output
    assert "cluster_rank" in output, output
    assert "UNREACHABLE" not in output, output
