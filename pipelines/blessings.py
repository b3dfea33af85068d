"""The three blessings that a promotion rests on, as the signed files of the bundle itself record them.

data: what validate judged. quality: what the gate judged, of the whole test split and of its groups. infra: what
export judged: the file loaded and answered real test samples in a fresh process, answered as the network does, and kept
within the budgets. What is missing was not given. Nothing is compared with an earlier model here, so a first promotion
rests on the same absolute rules as every other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import InputError
from pipelines import figures

STAGES = {"data": "validate", "quality": "gate", "infra": "export"}
QUERIED = "load and query in a fresh process"
"""The rule of export that a fresh process answered; it asks up to 128 samples of the test split."""


@dataclass(frozen=True)
class Blessing:
    """One of the three."""

    name: str
    told: str
    """What it rests on."""
    problems: tuple[str, ...]
    """Why it is none."""


def read(folder: Path, min_queries: int) -> list[Blessing]:
    """All three. `min_queries`: real test samples that the file must have been asked."""
    try:
        told = figures.read(folder, figures.EVALUATION)
    except InputError as error:
        why = f"{figures.EVALUATION} cannot be read: {str(error).rpartition(': ')[2]}"
        return [Blessing(name, "", (why,)) for name in STAGES]
    verdicts = {one["stage"]: one for one in told.get("verdicts") or ()}
    found = []
    for name, stage in STAGES.items():
        verdict = verdicts.get(stage)
        if verdict is None:
            found.append(Blessing(name, "", (f"the bundle holds no verdict of {stage}",)))
            continue
        problems = [*_judged(stage, verdict), *_more(name, verdict, told, min_queries)]
        found.append(Blessing(name, _in_short(name, verdict, told), tuple(problems)))
    return found


def _judged(stage: str, verdict: Mapping[str, Any]) -> Iterator[str]:
    rules = verdict.get("rules") or []
    if not rules:
        yield f"{stage} judged by no rule"
    for rule in rules:
        if rule.get("passed") is not True:
            yield f"{rule.get('name', 'a rule without a name')}: {rule.get('why') or 'it did not pass'}"
    if verdict.get("passed") is not True and all(rule.get("passed") is True for rule in rules):
        yield f"{stage} did not pass"


def _more(name: str, verdict: Mapping[str, Any], told: Mapping[str, Any], min_queries: int) -> Iterator[str]:
    rules = [rule for rule in verdict.get("rules") or () if rule.get("passed") is True]
    if name == "quality":
        for stage, what in (("evaluate", "quality on the test split"), ("bias", "groups")):
            if not any(_is_absolute(rule, stage) for rule in rules):
                yield f"no rule of the gate judged {what}: none is about {stage}.<metric> with a limit and a value"
        if not (told.get("groups") or {}).get("groups"):
            yield "no group was measured"
    if name == "infra":
        if not any(rule.get("name") == QUERIED for rule in rules):
            yield f"no rule '{QUERIED}'"
        yield from _answered(told.get("parity"), min_queries)


def _is_absolute(rule: Mapping[str, Any], stage: str) -> bool:
    measured = [rule.get("value"), rule.get("limit")]
    return str(rule.get("metric", "")).startswith(f"{stage}.") and all(_number(one) is not None for one in measured)


def _answered(parity: Any, min_queries: int) -> Iterator[str]:
    """Whether enough samples were asked, and answered as the network that was trained answers them."""
    shipped, float32 = (_part(parity, of) for of in ("shipped", "float32"))
    num = _number(shipped.get("num_samples"))
    if num is None or num < min_queries:
        asked = "no" if num is None else f"{num:.0f}"
        yield (
            f"model.onnx was asked {asked} real test samples, and promote.min_queries is {min_queries}. Get more data, "
            "or a larger `validate.split.test`; or lower promote.min_queries"
        )
    flips, most = _number(float32.get("flips")), _number(float32.get("max_flips"))
    if flips is None or most is None or flips > most:
        yield "that the ONNX file decides as the trained network does is not recorded"
    limits = _part(float32, "limits")
    outputs = _part(float32, "outputs")
    for output, limit in limits.items():
        found = _number(_part(outputs, output).get("relative"))
        if found is None or _number(limit) is None or not found <= limit:
            yield f"parity of {output}: {found} is not within {limit}"
    if not limits:
        yield "parity was held to no limit"


def _part(value: Any, key: str) -> dict[str, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _in_short(name: str, verdict: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    num = len(verdict.get("rules") or ())
    words = f"{num} rule{'s' if num != 1 else ''} of {STAGES[name]} passed"
    if name == "quality":
        return f"{words}, over {len((told.get('groups') or {}).get('groups') or ())} groups too"
    if name == "infra":
        num_samples = _part(told.get("parity"), "shipped").get("num_samples")
        return f"{words}; it answered {num_samples} test samples as the network does"
    return words
