"""The ladder: the network written in several ways, and each measured: what it loses, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from components.contracts import Interval, write_atomic
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
Answer = Callable[[Path, str], "Outputs"]
"""A model's file and a split -> its outputs."""
ByBatch = dict[int, tuple[np.ndarray, "Outputs"]]
"""Batch size -> indices of samples, and what they are answered."""
InOtherBatches = Callable[[Path, str], ByBatch]


@dataclass(frozen=True)
class Loss:
    """What a rung loses against float32 on one split."""

    num_samples: int
    accuracy: float
    gain: Interval
    """Accuracy minus float32's, paired."""
    flips: int
    """Samples whose decision differs from float32's, in batches of parity.REFERENCE_BATCH."""
    outputs: dict[str, dict[str, float]]
    """Differences from float32 by output; see parity.differences."""
    batches: dict[str, dict[str, int]] = field(default_factory=dict)
    """On validation, the flips in batches of other sizes: num_samples and flips, by size."""


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
        told = f"not made: ONNX Runtime does not take it: {runtime.in_short(error, rung.place)}"
        return Rung(rung.name, rung.told, told)
    return rung


def measure(
    rungs: Iterable[Rung], answer: Answer, truths: Mapping[str, np.ndarray], decision: ModuleType,
    in_other_batches: InOtherBatches | None = None,
) -> list[Rung]:  # fmt: skip
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
        if in_other_batches and rung.name != FIRST:
            for split, loss in losses.items():
                others = in_other_batches(rung.place, split)
                losses[split] = replace(loss, batches=_flips_by_batch(others, first[split], decision.OUTPUT))
        found.append(replace(rung, why_not=rung.why_not or _broken(outputs), losses=losses))
    return found


def _flips_by_batch(others: ByBatch, first: Outputs, decided: str) -> dict[str, dict[str, int]]:
    return {
        str(batch): {
            "num_samples": len(chosen), "flips": int(parity.flips(first[decided][chosen], found[decided]).sum()),
        }
        for batch, (chosen, found) in others.items()
    }  # fmt: skip


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
    return np.asarray((guessed(decided, truth.shape[1]) == truth).all(axis=1))


def guessed(decided: np.ndarray, num_labels: int) -> np.ndarray:
    """Which labels were decided for, bool [N, K], from a model's decisions, [N] or [N, K]."""
    return np.asarray(decided.astype(bool) if decided.ndim > 1 else decided[:, None] == np.arange(num_labels))


def outputs_of(path: Path, rows: np.ndarray, threads: int, feed: FeedOf, progress: Progress) -> Outputs:
    """What a rung answers, in batches of 16 in the samples' order."""
    return parity.exported(runtime.open_session(path, threads), rows, feed, parity.REFERENCE_BATCH, progress)


def in_other_batches(
    path: Path, rows: np.ndarray, lengths: np.ndarray | None, threads: int, feed: FeedOf, progress: Progress
) -> ByBatch:
    """The same in the other batch sizes of parity: an answer may depend on the other samples of its batch."""
    session, found = runtime.open_session(path, threads), {}
    for batch in parity.BATCHES:
        if batch != parity.REFERENCE_BATCH:
            chosen = parity.asked(len(rows), batch, lengths)
            found[batch] = (chosen, parity.exported(session, rows[chosen], feed, batch, progress))
    return found


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
