# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""image_bake as a task would run it, with a script in Docker's place; and the Dockerfile that the role gives it."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.filter.core import FilterModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image_moe, _image_parsers, _release
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc
from jinja2 import Environment, StrictUndefined

MODULE = "image_bake"
ROLE = Path(__file__).parents[2] / "roles/image"
BASE = "sha256:1"
CONFIG = "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128].json"
FILES = [
    {"name": f"moe_configs/{CONFIG}", "target": f"/pkg/configs/triton_3_5_0/{CONFIG}", "content": '{"1": {}}\n'},
    {"name": "parsers/utils.py", "target": "/pkg/function_call/utils.py", "content": "# Größe\n"},
]
PROOFS = [
    {"about": "parsers", "question": {**_image_parsers.question("glm47"), "strict": True}},
    {"about": "moe_configs", "question": {"device_name": "NVIDIA GB10", "lookups": [[160, 384, "x", 0, 0, False]]}},
]
# Keeps the images' ids by name, and of each build what it was given; how it goes, the Dockerfile says.
DOCKER = """#!{python}
import json, pathlib, shutil, sys, time
state = pathlib.Path({state!r})
words = sys.argv[1:]
with open(state / "calls", "a") as calls:
    print(json.dumps(words), file=calls)
images = json.loads((state / "images").read_text())
if words[:2] == ["image", "inspect"]:
    print(images.get(words[-1], ""))
    sys.exit("Error: No such image" if words[-1] not in images else 0)
assert words[0] == "build", words
context = pathlib.Path(words[-1])
shutil.rmtree(state / "context", ignore_errors=True)
shutil.copytree(context, state / "context")
told = (context / "Dockerfile").read_text()
if "slow" in told:
    time.sleep(60)
if "fail" in told:
    print(*(f"step {{number}}" for number in range(60)), sep="\\n", flush=True)
    sys.exit("SGLang does not find a.json")
(name,) = [word.removeprefix("--tag=") for word in words if word.startswith("--tag=")]
if "elsewhere" not in told:
    (state / "images").write_text(json.dumps({{**images, name: "sha256:built"}}))
"""


class Node:
    """A node that has the image `img`, with the `docker` of above."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.state = scratch / "state"
        self.context = self.state / "context"
        self.state.mkdir()
        self.have(img=BASE)
        (scratch / "bin").mkdir()
        docker = scratch / "bin/docker"
        docker.write_text(DOCKER.format(python=sys.executable, state=str(self.state)))
        docker.chmod(0o755)

    def have(self, **images: str) -> None:
        (self.state / "images").write_text(json.dumps(images))

    def bake(self, *, check: bool = False, docker: bool = True, **options: Any) -> dict[str, Any]:
        given = {"image": "img", "files": FILES, "dockerfile": "FROM img\n", "proofs": PROOFS, **options}
        env = {"PATH": f"{self.scratch / 'bin'}:{os.environ['PATH']}" if docker else str(self.scratch)}
        result = adhoc.run(self.scratch, MODULE, given, check=check, env=env).result
        assert "Traceback" not in result.get("msg", "")
        return result

    def builds(self) -> list[list[str]]:
        """How `docker build` was called so far."""
        calls = [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]
        return [call for call in calls if call[0] == "build"]

    def seen(self) -> dict[str, str]:
        """What the last build saw, by path."""
        paths = [path for path in self.context.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.context)): path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def name_of(files: list[dict[str, str]], base: str) -> str:
    return _release.baked_image(_release.files_from(files), base)


def test_the_first_run_builds_and_the_second_does_nothing(node: Node) -> None:
    checked = node.bake(check=True)
    name = name_of(FILES, BASE)
    assert name.startswith("localhost/dgx-spark/sglang:")
    assert checked == {"changed": True, "name": name, "image_id": "", "failed": False}
    assert node.builds() == []

    first = node.bake()
    assert first == {"changed": True, "name": name, "image_id": "sha256:built", "failed": False}
    (build,) = node.builds()
    # Nothing is to come from a network.
    assert {"--network=none", f"--tag={name}"} <= {*build}

    second = node.bake()
    assert second == {**first, "changed": False}
    assert node.bake(check=True) == second
    assert len(node.builds()) == 1


def test_everything_lies_where_the_dockerfile_expects_it(node: Node) -> None:
    dockerfile = dockerfile_for(2, {})
    assert not node.bake(dockerfile=dockerfile)["failed"]
    seen = node.seen()
    assert seen.pop("Dockerfile") == dockerfile
    # `COPY files/ /` brings each to its place.
    assert {path.removeprefix("files"): text for path, text in seen.items() if path.startswith("files/")} == {
        file["target"]: file["content"] for file in FILES
    }
    proofs = {path: text for path, text in seen.items() if not path.startswith("files/")}
    assert proofs.keys() == {"proofs/0.py", "proofs/0.json", "proofs/1.py", "proofs/1.json"}
    assert (proofs["proofs/0.py"], proofs["proofs/1.py"]) == (_image_parsers.PROVE, _image_moe.RESOLVE)
    assert [json.loads(proofs[f"proofs/{number}.json"]) for number in range(2)] == [
        proof["question"] for proof in PROOFS
    ]


def test_there_are_folders_to_copy_even_if_there_is_nothing_in_them(node: Node) -> None:
    assert not node.bake(files=[], proofs=[])["failed"]
    assert {path.name for path in node.context.iterdir()} == {"Dockerfile", "files", "proofs"}


def test_what_is_copied_is_for_everybody_to_read(node: Node) -> None:
    before = os.umask(0o077)
    try:
        assert not node.bake()["failed"]
    finally:
        os.umask(before)
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in node.context.rglob("*")}
    assert modes == {(True, 0o755), (False, 0o644)}


def test_the_name_follows_from_content_and_base(node: Node) -> None:
    names = {node.bake(check=True)["name"]}
    # Their order means nothing.
    assert node.bake(check=True, files=FILES[::-1])["name"] in names
    first, second = FILES
    others = [[first], [first, {**second, "content": ""}], [first, {**second, "target": "/pkg/other.py"}]]
    names |= {node.bake(check=True, files=files)["name"] for files in others}
    node.have(img="sha256:2")
    names.add(node.bake(check=True)["name"])
    assert len(names) == 5
    assert name_of(FILES, "sha256:2") in names


def test_a_build_that_fails_ends_with_what_docker_said_last(node: Node) -> None:
    result = node.bake(dockerfile="fail\n")
    assert result["failed"]
    told, *lines = result["msg"].splitlines()
    assert told == "The image can't be built; nothing was changed. Mend what Docker says:"
    # What is written to stderr is the end of it, in its place.
    assert lines == [*(f"step {number}" for number in range(21, 60)), "SGLang does not find a.json"]
    assert node.bake(check=True)["changed"]


def test_a_build_that_does_not_end(node: Node) -> None:
    result = node.bake(dockerfile="slow\n", timeout=1)
    assert result["failed"]
    assert result["msg"] == "The image was not built in 1 s. Mend: look at what slows the node down."


def test_the_image_to_build_from_is_missing(node: Node) -> None:
    node.have()
    result = node.bake()
    assert result["failed"]
    assert result["msg"] == "There is no img here. Mend: run site.yml with the stage image."
    assert node.builds() == []
    # A first run of site.yml in check mode comes here without it.
    checked = node.bake(check=True)
    assert (checked["failed"], checked["changed"], checked["image_id"]) == (False, True, "")


def test_no_docker(node: Node) -> None:
    result = node.bake(docker=False)
    assert result["failed"]
    assert result["msg"] == "There is no img here. Mend: run site.yml with the stage image."
    # A bare node in check mode.
    assert node.bake(docker=False, check=True)["changed"]


def test_a_builder_that_keeps_what_it_built(node: Node) -> None:
    result = node.bake(dockerfile="elsewhere\n")
    assert result["failed"]
    assert "but does not have it. Mend: `docker buildx use default`" in result["msg"]


def test_without_files_there_is_still_a_folder_to_copy(node: Node) -> None:
    assert node.bake(files=[])["changed"]
    assert [path.name for path in (node.context / "files").iterdir()] == []


def test_modes_are_for_everybody(node: Node) -> None:
    before = os.umask(0o077)
    try:
        assert node.bake()["changed"]
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in node.context.rglob("*") if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in node.context.rglob("*") if path.is_dir()}
    assert (modes, folders) == ({0o644}, {0o755})


def test_a_file_that_leaves_the_context(node: Node) -> None:
    result = node.bake(files=[{"name": "a", "target": "/../../a", "content": ""}])
    assert result["failed"]
    assert "'/../../a' is no absolute path in the image. Mend: " in result["msg"]
    assert node.builds() == []


def test_everything_that_is_returned_is_documented(node: Node) -> None:
    module = importlib.import_module(f"ansible_collections.dgx_spark.sglang.plugins.modules.{MODULE}")
    assert set(yaml.safe_load(module.RETURN)) == set(node.bake(check=True)) - {"failed", "changed"}


# ---- the Dockerfile ---------------------------------------------------------------------------


def dockerfile_for(proofs: int, environment: dict[str, str]) -> str:
    """The role's Dockerfile, rendered as Ansible's template lookup does."""
    jinja = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    jinja.filters["quote"] = FilterModule().filters()["quote"]
    template = jinja.from_string((ROLE / "templates/Dockerfile.j2").read_text())
    return template.render(
        ansible_managed="Ansible managed",
        cluster_plan={"image": "lmsysorg/sglang:spark"},
        image_bake_proofs=[{}] * proofs,
        image_bake_environment=environment,
    )


def instructions(text: str) -> list[str]:
    assert "\\\n" not in text
    return [line for line in text.splitlines() if line and not line.startswith("#")]


ENVIRONMENT = {"SGLANG_MOE_CONFIG_DIR": "/srv/it's $HOME/a  b", "OTHER": ""}


def test_each_proof_is_one_line_that_a_shell_reads(node: Node) -> None:
    lines = instructions(dockerfile_for(2, ENVIRONMENT))
    assert [line.split()[0] for line in lines] == ["FROM", "LABEL", "COPY", "COPY", "RUN", "RUN"]
    assert lines[0] == "FROM lmsysorg/sglang:spark"
    assert lines[2:4] == ["COPY files/ /", "COPY proofs/ /opt/dgx-spark/proofs/"]
    # What the proofs are run with lies where they say, and arrives as it is.
    assert not node.bake()["failed"]
    python = node.scratch / "bin/python3"
    python.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"print(json.dumps([sys.argv[2:], {{name: os.environ.get(name) for name in {list(ENVIRONMENT)}}}]))\n"
    )
    python.chmod(0o755)
    for number, line in enumerate(lines[4:]):
        command = line.removeprefix("RUN ").replace("/opt/dgx-spark/proofs", shlex.quote(str(node.context / "proofs")))
        path = f"{python.parent}:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-euc", command], env={"PATH": path}, capture_output=True, text=True, check=True)
        (program, question), environment = json.loads(done.stdout)
        assert program == str(node.context / f"proofs/{number}.py")
        assert json.loads(question) == PROOFS[number]["question"]
        assert environment == ENVIRONMENT


def test_without_an_environment_and_without_proofs() -> None:
    runs = [line for line in instructions(dockerfile_for(1, {})) if line.startswith("RUN")]
    assert runs == ['RUN python3 -B /opt/dgx-spark/proofs/0.py "$(cat /opt/dgx-spark/proofs/0.json)"']
    assert not [line for line in instructions(dockerfile_for(0, ENVIRONMENT)) if line.startswith("RUN")]
