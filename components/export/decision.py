"""Which rung of the ladder ships.

A rung may ship if the lower end of the paired interval of its accuracy minus float32's, on the validation split, is at
least -max_loss. Of those that are at least min_speedup times as fast as float32, at batch 1 and at batch 16, the
fastest ships, and of several of which none is min_speedup times as fast as the other, the simplest. Where none is as
fast as that, float32 ships.

A rung's time is the smallest of the interleaved rounds' medians: other load on the machine only ever adds time. Each
time is that of samples as the task prepared them: images have the size that the network sees, so what the resize inside
the graph costs is not part of it; it is the same for every rung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.contracts import InputError, Refused
from components.export.ladder import FIRST, LEVEL, Rung

NOT_CHOSEN = "not chosen: see reports/export/ladder.json for the times"
"""The same words whichever threshold a measured time was beyond: who ships decides the record, and nothing else."""
NOTE = (
    "Milliseconds a batch on this machine, by batch size: every model in a process of its own, in interleaved rounds; "
    "median, smallest (low) and largest (high) of the rounds' medians. low decides, as other load on the machine only "
    "adds time. Samples are as the task prepared them: images have the size that the network sees, so what the resize "
    "inside the graph costs for larger ones is not in these times. memory_mb is the peak of the whole process, Python "
    "and ONNX Runtime included."
)


class VariantError(Refused):
    """The variant that params pin may not ship (exit code 3)."""


@dataclass(frozen=True)
class Decision:
    """Which rung ships, and of each why it does or does not, in words that hold no measured time."""

    variant: str
    decided: str
    """measured, or pinned."""
    why: str
    reasons: dict[str, str]
    measured: str
    """The rung that the measurement alone would choose."""


def decide(
    rungs: Sequence[Rung], latency: Mapping[str, Mapping[str, float]], max_loss: float, min_speedup: float, pinned: str
) -> Decision:
    """`latency` is milliseconds by rung and batch size, of those that may ship; `pinned` is a rung, or auto.

    Raises:
        VariantError: the pinned rung could not be made, or loses too much.
    """
    barred = {rung.name: rung.why_not or _too_much(rung, max_loss) for rung in rungs}
    best = _fastest([rung.name for rung in rungs if not barred[rung.name]], latency, min_speedup)
    if pinned != "auto":
        return _pinned(rungs, max_loss, pinned, best)
    loss = f"{100 * max_loss:g} points of accuracy ({100 * LEVEL:g} % interval)"
    if best != FIRST:
        why = (
            f"of those that lose at most {loss} and are at least {min_speedup:g} times as fast as {FIRST}, the "
            f"simplest of which no other is {min_speedup:g} times as fast"
        )
    elif sum(rung.place is not None for rung in rungs) == 1:
        why = "nothing else was tried that could ship"
    else:
        why = f"nothing else loses at most {loss} and is at least {min_speedup:g} times as fast"
    reasons = {name: reason or NOT_CHOSEN for name, reason in barred.items()}
    return Decision(best, "measured", why, {**reasons, best: f"ships: {why}"}, best)


def _fastest(allowed: Sequence[str], latency: Mapping[str, Mapping[str, float]], min_speedup: float) -> str:
    """Of `allowed`, which go from the simplest to the least simple."""

    def beats(one: str, other: str) -> bool:
        return one != other and _speedup(latency[other], latency[one]) >= min_speedup

    fast = [name for name in allowed if name != FIRST and beats(name, FIRST)]
    return next((name for name in fast if not any(beats(other, name) for other in fast)), fast[0] if fast else FIRST)


def _pinned(rungs: Sequence[Rung], max_loss: float, pinned: str, measured: str) -> Decision:
    """What is not the pinned one says only what no measured time decides, so that the record is the same each time."""
    stable = {rung.name: rung.why_not or _too_much(rung, max_loss) for rung in rungs}
    if stable[pinned]:
        raise VariantError(
            f"export.variant pins {pinned}, which may not ship: {stable[pinned]}. Set it to auto or another rung, or "
            "raise `export.max_loss`."
        )
    why = f"export.variant pins {pinned}"
    told = {name: reason or f"not asked for: {why}" for name, reason in stable.items()}
    return Decision(pinned, "pinned", why, {**told, pinned: f"ships: {why}"}, measured)


def settle(decision: Decision, rungs: Sequence[Rung], max_loss: float, recorded: Mapping[str, Any]) -> Decision:
    """The recorded decision (see `record`) where a model is made again: other times may not make it another model.

    What was measured now is kept as `measured`. A recorded variant that may not ship here is not taken.

    Raises:
        InputError: what was given is no such record.
    """
    if recorded and (problem := not_a_record(recorded)):
        raise InputError(f"what is given as a recorded decision of `export` is none: {problem}")
    stable = {rung.name: rung.why_not or _too_much(rung, max_loss) for rung in rungs}
    variant = str(recorded.get("variant", ""))
    if decision.decided == "pinned" or stable.get(variant, "unknown"):
        return decision
    told = {str(one["name"]): str(one["why"]) for one in recorded["rungs"]}
    reasons = {name: why or told.get(name, "") for name, why in stable.items()}
    return Decision(variant, str(recorded["decided"]), str(recorded["why"]), reasons, decision.measured)


def not_a_record(told: Any) -> str:
    """Why a value from outside is not what `record` gives, as far as `settle` reads it; empty: it is."""
    if not isinstance(told, Mapping):
        return "it holds no keys"
    words = ("variant", "decided", "why")
    wrong = [key for key in words if not isinstance(told.get(key), str)]
    rows = told.get("rungs")
    if not isinstance(rows, list) or not all(
        isinstance(row, Mapping) and isinstance(row.get("name"), str) and isinstance(row.get("why"), str)
        for row in rows
    ):
        wrong.append("rungs")
    if wrong:
        return f"{', '.join(wrong)} is missing or of another kind"
    known = ("measured", "pinned")
    return "" if told["decided"] in known else f"decided is {told['decided']!r:.40}, neither {' nor '.join(known)}"


def _too_much(rung: Rung, max_loss: float) -> str:
    """Why its loss forbids it; empty: it does not. Float32 loses nothing against itself."""
    if rung.place is None or rung.name == FIRST:
        return ""
    loss = rung.losses["validation"]
    if loss.gain.low >= -max_loss:
        return ""
    told = f"on {loss.num_samples} validation samples it may lose {-100 * loss.gain.low:.2g} points of accuracy"
    few = " (too few samples to say less)" if loss.flips == 0 else f" ({loss.flips} labels flip)"
    return f"{told}{few}; export.max_loss allows {100 * max_loss:g}"


def _speedup(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The smaller one of those at each batch size."""
    return min(before[batch] / after[batch] for batch in before)


def record(rungs: Sequence[Rung], decision: Decision) -> dict[str, Any]:
    """What is kept of a ladder: byte-stable, so no measured time."""
    rows = [
        {
            "name": rung.name,
            "shipped": rung.name == decision.variant,
            "why": decision.reasons[rung.name],
            "told": rung.told,
            "size_mb": rung.size_mb,
            "losses": {split: asdict(loss) for split, loss in rung.losses.items()},
        }
        for rung in rungs
    ]
    return {"variant": decision.variant, "decided": decision.decided, "why": decision.why, "rungs": rows}
