"""The ladder: the network written in several ways, each measured, and the one that ships.

A rung may ship if the lower end of the paired interval of its accuracy minus float32's, on the validation split, is at
least -max_loss. Of those, going from the simplest to the least simple, one takes the place of the one before if it is
at least min_speedup times as fast, at batch 1 and at batch 16. So a tie goes to the simpler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from components.contracts import Interval, Refused, write_atomic
from components.export import parity, runtime, trial
from components.export.graph import NotMade, Samples
from components.export.network import SCALED
from components.paired import paired_gain
from components.plugins import Choice

if TYPE_CHECKING:
    from components.export.parity import FeedOf, Outputs, Progress

LEVEL = 0.95
"""Confidence level of the paired intervals."""
FIRST = "fp32"
NOTE = (
    "Milliseconds a batch on this machine, by batch size: every model in a process of its own, in interleaved rounds; "
    "median, smallest and largest of the rounds' medians. memory_mb is the peak of the whole process, Python and ONNX "
    "Runtime included. Other load on the machine changes them."
)
Answer = Callable[[Path, str], "Outputs"]
"""A model's file and a split -> its outputs."""


class VariantError(Refused):
    """The variant that params pin may not ship (exit code 3)."""


@dataclass(frozen=True)
class Loss:
    """What a rung loses against float32 on one split."""

    num_samples: int
    accuracy: float
    gain: Interval
    """Accuracy minus float32's, paired."""
    flips: int
    """Samples whose decision differs from float32's."""
    outputs: dict[str, dict[str, float]]
    """Differences from float32 by output; see parity.differences."""


@dataclass(frozen=True)
class Rung:
    """One way to write the network."""

    name: str
    told: str = ""
    why_not: str = ""
    """It was not made, or may not ship, because of this; in stable words."""
    place: Path | None = None
    losses: dict[str, Loss] = field(default_factory=dict)
    """By split."""

    @property
    def size_mb(self) -> float | None:
        """Of its file."""
        return None if self.place is None else round(self.place.stat().st_size / 1e6, 3)


def build(
    network: onnx.ModelProto, choices: Sequence[Choice], samples: Samples,
    joined: Callable[[onnx.ModelProto], onnx.ModelProto], folder: Path, say: Callable[[str], None],
) -> list[Rung]:  # fmt: skip
    """Every rung as a file below `folder`, or why there is none."""
    found = []
    for choice in choices:
        module = choice.load()
        if why := module.not_worth(network):
            found.append(Rung(choice.name, why_not=f"not tried: {why}"))
            continue
        if choice.name != FIRST:
            say(f"writing the network as {choice.name}")
        try:
            made, told = module.made(network, samples, choice.params)
        except NotMade as error:
            found.append(Rung(choice.name, why_not=f"not made: {error}"))
            continue
        place = folder / f"{choice.name}.onnx"
        write_atomic(place, joined(made).SerializeToString(deterministic=True))
        found.append(_loads(Rung(choice.name, told, place=place), samples.threads))
    return found


def _loads(rung: Rung, threads: int) -> Rung:
    """ONNX Runtime's tools may write what ONNX Runtime does not take."""
    assert rung.place is not None
    if rung.name == FIRST:
        return rung
    try:
        runtime.open_session(rung.place, threads)
    except Exception as error:  # its errors have no common type
        told = (str(error).splitlines() or [type(error).__name__])[0].replace(str(rung.place), "the model")[:200]
        return Rung(rung.name, rung.told, f"not made: ONNX Runtime does not take it: {told}")
    return rung


def measure(
    rungs: Iterable[Rung], answer: Answer, truths: Mapping[str, np.ndarray], decision: ModuleType
) -> list[Rung]:
    """The same with their losses on every split; `truths` are bool [N, K] by split."""
    found: list[Rung] = []
    first: dict[str, Outputs] = {}
    for rung in rungs:
        if rung.place is None:
            found.append(rung)
            continue
        outputs = {split: answer(rung.place, split) for split in truths}
        first = first or outputs
        losses = {s: _loss(outputs[s], first[s], truth, decision.OUTPUT) for s, truth in truths.items()}
        found.append(replace(rung, why_not=rung.why_not or _broken(outputs), losses=losses))
    return found


def _broken(outputs: Mapping[str, Outputs]) -> str:
    finite = all(np.isfinite(found[name]).all() for found in outputs.values() for name in SCALED)
    return "" if finite else "some of its outputs are not finite"


def _loss(found: Outputs, first: Outputs, truth: np.ndarray, decided: str) -> Loss:
    right, right_first = (_right(one[decided], truth) for one in (found, first))
    gaps = {name: np.abs(found[name].astype(np.float64) - first[name]).ravel() for name in SCALED}
    return Loss(
        len(truth), float(right.mean()), paired_gain(right, right_first, LEVEL),
        int(parity.flips(first[decided], found[decided]).sum()),
        {name: parity.differences(gap, parity.scale_of(first[name])) for name, gap in gaps.items()},
    )  # fmt: skip


def _right(decided: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether the decision is exactly the truth, bool [N]."""
    guess = decided.astype(bool) if decided.ndim > 1 else decided[:, None] == np.arange(truth.shape[1])
    return np.asarray((guess == truth).all(axis=1))


def outputs_of(path: Path, threads: int, rows: np.ndarray, feed: FeedOf, progress: Progress) -> Outputs:
    """What a rung answers, in batches of 16 in the samples' order."""
    return parity.exported(runtime.open_session(path, threads), rows, feed, parity.REFERENCE_BATCH, progress)


def costs(
    rungs: Iterable[Rung], feeds: dict[int, trial.Feed], threads: int, say: Callable[[str], None]
) -> tuple[list[Rung], dict[str, dict[str, Any]]]:
    """Time and memory of each, side by side; what does not run in a process of its own may not ship."""
    found: list[Rung] = []
    with ExitStack() as stack:
        trials: dict[str, trial.Trial] = {}
        for rung in rungs:
            told = rung
            if rung.place is not None:
                try:
                    one = stack.enter_context(trial.Trial(rung.place, threads))
                    one.answers(list(feeds.values()))
                    trials[rung.name] = one
                except trial.TrialError as error:
                    if rung.name == FIRST:
                        raise
                    told = replace(rung, why_not=f"in a process of its own {error}")
            found.append(told)
        if len(trials) > 1:
            say(f"measuring {', '.join(trials)} side by side")
        return found, trial.compare(trials, feeds)


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
    reasons = {rung.name: rung.why_not or _too_much(rung, max_loss) for rung in rungs}
    best = rungs[0].name
    for rung in rungs[1:]:
        if reasons[rung.name]:
            continue
        if _speedup(latency[best], latency[rung.name]) >= min_speedup:
            reasons[best] = f"{rung.name} is at least {min_speedup:g} times as fast, and loses no more than allowed"
            best = rung.name
        else:
            reasons[rung.name] = f"it is not {min_speedup:g} times as fast as {best} at batch 1 and 16"
    if pinned != "auto":
        return _pinned(rungs, max_loss, pinned, best)
    tried = sum(rung.place is not None for rung in rungs)
    if best == rungs[0].name:
        why = (
            "nothing else was tried that could ship" if tried == 1 else "nothing else is clearly faster within the loss"
        )
    else:
        why = f"the fastest that loses at most {100 * max_loss:g} points of accuracy, with {100 * LEVEL:g} % confidence"
    return Decision(best, "measured", why, {**reasons, best: f"ships: {why}"}, best)


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
    """
    stable = {rung.name: rung.why_not or _too_much(rung, max_loss) for rung in rungs}
    variant = str(recorded.get("variant", ""))
    if decision.decided == "pinned" or stable.get(variant, "unknown"):
        return decision
    told = {str(one["name"]): str(one["why"]) for one in recorded["rungs"]}
    reasons = {name: why or told.get(name, "") for name, why in stable.items()}
    return Decision(variant, str(recorded["decided"]), str(recorded["why"]), reasons, decision.measured)


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
