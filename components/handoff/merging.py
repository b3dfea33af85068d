"""The lineages of all stages as one record, if they are of one run of the line."""

from __future__ import annotations

from typing import Any

from components.contracts import InputError

Lineages = dict[str, dict[str, Any]]


class MixedLineError(InputError):
    """The folders under artifacts/ come from different runs of the line."""


def merge(lineages: Lineages) -> dict[str, Any]:
    """One record of all stages: code, params and environment once, inputs and outputs by stage.

    Raises:
        MixedLineError: a stage read something else than what is there now, or ran with other code.
    """
    code: dict[str, str] = {}
    params: dict[str, Any] = {}
    for stage, lineage in lineages.items():
        _check_inputs(stage, lineage, lineages)
        for path, digest in lineage["code"].items():
            if code.setdefault(path, digest) != digest:
                raise MixedLineError(f"{path} was another file when {stage} ran. Run `dvc repro`, which mends it.")
        params |= lineage["params"]
    usual, others = environments({stage: lineage["environment"] for stage, lineage in lineages.items()})
    return {
        "code": dict(sorted(code.items())),
        "params": params,
        "environment": usual,
        "environments_that_differ": others,
        "stages": {
            s: {"code": sorted(one["code"]), **{k: one[k] for k in ("inputs", "outputs", "parents")}}
            for s, one in lineages.items()
        },
    }


def environments(told: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The environment of all stages as one, and what is another in some.

    A stage's lineage names the libraries that it imports and all that these need; here they are put together. Where
    two stages ran with different versions, that of the export stands, and the other stage is named.
    """
    usual = dict(told["export"])
    packages: dict[str, str] = {}
    for one in (*told.values(), usual):
        packages |= one.get("packages", {})
    usual["packages"] = dict(sorted(packages.items()))
    accelerators = [one["accelerator"] for one in told.values() if "accelerator" in one]
    usual |= {"accelerator": accelerators[-1]} if accelerators else {}
    others = {}
    for stage, one in told.items():
        apart = {key: one.get(key) for key in ("python", "machine", "system", "pins") if one.get(key) != usual.get(key)}
        versions = {n: v for n, v in one.get("packages", {}).items() if packages[n] != v}
        if apart or versions:
            others[stage] = {**apart, **({"packages": versions} if versions else {})}
    return usual, others


def _check_inputs(stage: str, lineage: dict[str, Any], lineages: Lineages) -> None:
    """What a stage read must be what the stage before it made, by hash."""
    for path, digest in lineage["inputs"].items():
        parts = path.split("/")
        maker = lineages.get(parts[1]) if parts[0] == "artifacts" and len(parts) > 2 else None
        made = maker["outputs"].get(path, digest) if maker else digest
        if made != digest:
            raise MixedLineError(
                f"{stage} was made from another {path} than is there now. Run `dvc repro`, which mends it."
            )
