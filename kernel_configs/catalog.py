"""The models that configs are shipped for, and the layers that their names stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe import Lookup, MoeShape, lookups, why_no_lookup
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest

from kernel_configs.cost import GEMMS, Layer
from kernel_configs.gb10 import GB10

MODELS = Path(__file__).with_name("models.yml")
# Powers of two, as the heads and experts of all models in use want it.
TENSOR_PARALLEL = (1, 2, 4, 8)

_NOTES = ("hf_id", "same_shape", "borne_out")


class CatalogError(ValueError):
    """A model or shape that nothing can be made for; the text says why, and the mend."""


@dataclass(frozen=True)
class Model:
    """A model of the catalog. ids: the checkpoints with this shape, the first being the one that gave it."""

    name: str
    ids: tuple[str, ...]
    shape: MoeShape


@dataclass(frozen=True)
class Target:
    """A config file to be made.

    name: as SGLang looks for it; models and releases: that look for it; tp: ranks.
    """

    name: str
    gemm: str
    layer: Layer
    tp: int
    models: tuple[str, ...]
    releases: tuple[str, ...]


def models(path: Path = MODELS) -> dict[str, Model]:
    """The catalog by name. CatalogError for an entry that makes no shape."""
    found = {}
    for name, entry in yaml.safe_load(path.read_text()).items():
        keys = {key: value for key, value in entry.items() if key not in _NOTES}
        block = keys.pop("block_shape", None)
        try:
            shape = MoeShape(block_shape=tuple(block) if block else None, **keys)
        except TypeError as error:
            raise CatalogError(f"{path.name}: {name}: {error}. Mend: use the keys of MoeShape.") from error
        reason = why_no_lookup(shape)
        if reason:
            raise CatalogError(f"{path.name}: {name}: {reason}. Mend: remove it.")
        found[name] = Model(name, (entry["hf_id"], *entry.get("same_shape", ())), shape)
    return found


def model(name: str, known: Mapping[str, Model]) -> Model:
    """The model of that name. CatalogError with the nearest name."""
    if name not in known:
        guess = nearest(name, known)
        mend = f"did you mean {guess}?" if guess else f"take one of {', '.join(known)}; or give its shape: see `shape`."
        raise CatalogError(f"There is no model {name} in the catalog. Mend: {mend}")
    return known[name]


def splits(shape: MoeShape, releases: Iterable[str]) -> tuple[list[int], dict[int, str]]:
    """The tp that the shape allows, and why not the others."""
    newest = list(releases)[-1]
    allowed, left_out = [], {}
    for tp in TENSOR_PARALLEL:
        try:
            lookups(shape, tp, 1, newest, GB10.name)
        except ValueError as error:
            left_out[tp] = str(error).split(" Mend:")[0]
        else:
            allowed.append(tp)
    return allowed, left_out


def layer_of(shape: MoeShape, lookup: Lookup) -> Layer:
    """The layer that one rank computes when it looks for these files (no expert parallelism)."""
    return Layer(
        experts=shape.experts,
        top_k=shape.top_k,
        shared=lookup.experts - shape.experts,
        hidden=shape.hidden,
        n=lookup.n,
        kind=shape.kind,
        block_shape=shape.block_shape,
    )


def targets(
    shape: MoeShape,
    tp: int,
    releases: Iterable[str],
    device_name: str = GB10.name,
    fused: bool | None = None,
    models: tuple[str, ...] = (),
) -> list[Target]:
    """The files, up and down, that the releases look for with that split. ValueError as _moe.lookups."""
    found: dict[tuple[str, str], Target] = {}
    for release in releases:
        for lookup in lookups(shape, tp, 1, release, device_name, fused):
            for gemm, name in zip(GEMMS, (lookup.file, lookup.down_file), strict=True):
                target = found.get((name, gemm)) or Target(name, gemm, layer_of(shape, lookup), tp, models, ())
                found[name, gemm] = dataclasses.replace(target, releases=(*target.releases, release))
    return list(found.values())


def all_targets(wanted: Iterable[Model], releases: Iterable[str]) -> list[Target]:
    """The files of all these models. CatalogError when two of them would need different files of one name."""
    releases = tuple(releases)
    found: dict[str, Target] = {}
    for one in wanted:
        for tp in splits(one.shape, releases)[0]:
            # The launch option --disable-shared-experts-fusion leads to names of their own.
            unfused = targets(one.shape, tp, releases, fused=False, models=(one.name,))
            for target in (*targets(one.shape, tp, releases, models=(one.name,)), *unfused):
                other = found.setdefault(target.name, target)
                if other.layer == target.layer:
                    known = set(other.releases) | set(target.releases)
                    names = tuple(dict.fromkeys((*other.models, *target.models)))
                    order = tuple(release for release in releases if release in known)
                    found[target.name] = dataclasses.replace(other, models=names, releases=order)
                else:
                    raise CatalogError(
                        f"{target.name} would have to serve {other.models[0]} and {target.models[0]}, which "
                        "differ: SGLang's names leave out the hidden size. Mend: keep one of them in the catalog."
                    )
    return [found[name] for name in sorted(found)]
