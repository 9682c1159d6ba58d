"""What is shipped is what the generator makes, byte for byte, with the real compilers.

All models and names; the Tritons as conftest.py says.
"""

from __future__ import annotations

import json

from kernel_configs import wheels
from kernel_configs.catalog import all_targets, models
from kernel_configs.generate import SHIPPED, make
from kernel_configs.manifest import read


def test_shipped_files_are_made_again(triton: str) -> None:
    texts, manifest = make(all_targets(models().values(), wheels.SGLANG), [triton])
    shipped = read(SHIPPED)
    assert sorted(texts) == sorted(path for path, facts in shipped.files.items() if facts.triton == triton)
    differing = [path for path, text in texts.items() if (SHIPPED / path).read_text() != text]
    assert differing == []
    assert {path: shipped.files[path] for path in texts} == dict(manifest.files)
    assert manifest.checked_with[triton] == shipped.checked_with[triton]
    assert {release: shipped.kernels[release] for release in manifest.kernels} == dict(manifest.kernels)


def test_manifest_says_how() -> None:
    data = json.loads((SHIPPED / "manifest.json").read_text())
    assert data["command"] == "python -m kernel_configs generate"
    assert (data["device"], data["limit"]) == ("NVIDIA GB10", 101_376)
    assert set(data["checked_with"]) == set(wheels.TRITON)
