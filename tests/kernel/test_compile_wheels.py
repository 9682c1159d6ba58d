"""Wheels come by their pinned hash or not at all, and nothing half-done stays."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from pathlib import Path

import pytest

from kernel_configs import wheels
from kernel_configs.wheels import WheelError

METADATA = "Metadata-Version: 2.1\nName: sglang\nVersion: 9.0\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with one wheel, sglang 9.0, and its pin; an empty cache."""
    wheel = tmp_path / "index" / "sglang-9.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sglang/kernel.py", "answer = 42\n")
        archive.writestr("sglang/kernel.so", "left out")
        archive.writestr("sglang-9.0.dist-info/METADATA", METADATA)
        archive.writestr("sglang-9.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("sglang-9.0.dist-info/RECORD", "")
    pins = tmp_path / "pins"
    pins.mkdir()
    pin(pins, hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(wheels, "PINS", pins)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return tmp_path


def pin(pins: Path, digest: str) -> None:
    (pins / "sglang-9.0.txt").write_text(f"sglang==9.0 \\\n    --hash=sha256:{digest}\n")


def kept(shop: Path) -> list[str]:
    return sorted(path.name for path in (shop / "cache").glob("dgx-spark-kernel/*"))


def test_a_release_is_fetched_once_and_only_what_is_needed(shop: Path) -> None:
    folder = wheels.sglang("9.0")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["kernel.py"]
    (shop / "index/sglang-9.0-py3-none-any.whl").unlink()
    assert wheels.sglang("9.0") == folder


def test_another_hash_is_refused(shop: Path) -> None:
    pin(shop / "pins", "0" * 64)
    with pytest.raises(WheelError, match=r"sglang-9\.0 cannot be downloaded: .*Mend: "):
        wheels.sglang("9.0")
    assert kept(shop) == []


def test_another_pin_is_another_folder(shop: Path) -> None:
    first = wheels.sglang("9.0")
    text = (shop / "pins/sglang-9.0.txt").read_text()
    (shop / "pins/sglang-9.0.txt").write_text(f"{text.rstrip()} --hash=sha256:{'0' * 64}\n")
    assert wheels.sglang("9.0") != first


def test_an_interruption_leaves_nothing(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(wheel: Path, folder: Path, wanted: object) -> None:
        (folder / "sglang").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wheels, "_unpack", half)
        with pytest.raises(KeyboardInterrupt):
            wheels.sglang("9.0")
    assert kept(shop) == []
    assert (wheels.sglang("9.0") / "sglang/kernel.py").is_file()


def test_two_at_once_end_with_one(shop: Path) -> None:
    folder = wheels.sglang("9.0")
    again = shop / "again"
    again.mkdir()
    wheels._publish(again, folder)
    assert (folder / "sglang/kernel.py").is_file()
    assert not again.exists()


def test_a_release_without_a_pin_is_said(shop: Path) -> None:
    with pytest.raises(WheelError, match=r"sglang 8\.0 has no pinned hashes\. Mend: take one of 9\.0; or add "):
        wheels.sglang("8.0")


@pytest.mark.parametrize("path", sorted(wheels.PINS.glob("*.txt")), ids=lambda path: path.stem)
def test_pins_are_of_what_their_name_says(path: Path) -> None:
    name, version = path.stem.split("-", 1)
    requirement, *hashes = path.read_text().replace("\\\n", "").split()
    assert requirement == f"{name}=={version}"
    assert hashes
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
    assert len(set(hashes)) == len(hashes)


def test_versions_stand_in_their_order() -> None:
    assert wheels.SGLANG.index("0.5.4.post2") < wheels.SGLANG.index("0.5.9") < wheels.SGLANG.index("0.5.10")
    assert {"3.4.0", "3.5.0", "3.6.0"} <= set(wheels.TRITON)
