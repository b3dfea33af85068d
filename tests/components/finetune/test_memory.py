"""Memory that runs out: the batch is computed in pieces, the batches stay, and the record says so."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training
from lightning_fabric import Fabric
from tiny_training import digests, run, upstream
from training import data, network, pixels, start

from components.contracts import read_json
from components.finetune import course, loop, memory
from components.finetune.memory import OutOfMemory, Pieces
from components.finetune.phases import Callback, End, Phase, Step, everything
from components.job import Job
from components.model import TransferModel

LAYERS = Phase("full", 1, everything(0.01, 0.001), frozen_norm=True)


@contextmanager
def room_for(samples: int) -> Iterator[list[int]]:
    """Within it a device has memory for so many samples in training; what was tried."""
    tried: list[int] = []
    whole = TransferModel.forward

    def forward(self: TransferModel, *inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            tried.append(len(inputs[0]))
            found = whole(self, *inputs)  # the statistics have moved by the time that memory runs out
            if len(inputs[0]) > samples:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return found
        return whole(self, *inputs)

    TransferModel.forward = forward  # type: ignore[method-assign]
    try:
        yield tried
    finally:
        TransferModel.forward = whole  # type: ignore[method-assign]


def train(place: Path, phase: Phase = LAYERS, **changed: Any) -> tuple[TransferModel, Any]:
    place.mkdir(exist_ok=True)
    model = network()
    begun = start(model, phase, place, data(*pixels()), **changed)
    return model, loop.train_phase(begun, phase, place / "k.safetensors", "full")


def test_pieces_learn_what_the_batch_does(tmp_path: Path) -> None:
    """Without statistics of the batch the gradients are the same but for rounding."""
    whole, plain = train(tmp_path / "whole")
    with room_for(3) as tried:
        cut, state = train(tmp_path / "cut")
    assert tried[:3] == [8, 4, 2]
    assert set(tried[3:]) == {2}
    assert state.pieces == 4
    assert plain.pieces == 1
    assert state.num_samples_seen == plain.num_samples_seen
    for row, other in zip(state.history, plain.history):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
    assert any(not torch.equal(a, b) for a, b in zip(whole.state_dict().values(), cut.state_dict().values()))


def test_a_step_that_failed_leaves_no_trace_in_the_statistics(tmp_path: Path) -> None:
    """It fails after the forward pass, with statistics of the whole batch; a run that was told beforehand did not."""
    moving = replace(LAYERS, frozen_norm=False)
    with room_for(4):
        failed, _ = train(tmp_path / "failed", moving)
    real = loop.set_up

    def told(*given: Any) -> Any:
        work = real(*given)
        return replace(work, pieces=Fixed(2))

    loop.set_up = told
    try:
        knew, _ = train(tmp_path / "knew", moving)
    finally:
        loop.set_up = real
    states = failed.state_dict(), knew.state_dict()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_of_the_buffers_only_what_a_step_moves_is_kept() -> None:
    """A table of word vectors as large as a network is not cloned in each step."""
    model = network().train()
    model.register_buffer("table", torch.zeros(10, 3))
    still = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    kept = {id(buffer) for buffer in memory.moving(model)}
    names = {name for name, buffer in model.named_buffers() if id(buffer) in kept}
    assert {name.rpartition(".")[2] for name in names} == {"running_mean", "running_var", "num_batches_tracked"}
    assert id(model.table) not in kept
    assert id(still.running_mean) not in kept, "it is in eval mode"
    assert not list(memory.moving(model.eval()))


def test_the_failed_steps_graph_is_gone_before_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []
    alive: list[bool] = []

    class Watching(Callback):
        def penalty(self, step: Step) -> None:
            held.append(weakref.ref(step.features))

    def backward(self: Fabric, value: torch.Tensor, *_: Any, **__: Any) -> None:
        if len(held) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        value.backward()

    real = memory.put_back
    monkeypatch.setattr(memory, "put_back", lambda given: alive.append(held[0]() is not None) or real(given))
    monkeypatch.setattr(Fabric, "backward", backward)
    train(tmp_path, replace(LAYERS, callback=Watching))
    assert alive == [False]


def out(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("where", ["set_up", "measure", "finish"])
def test_out_of_memory_outside_of_the_steps_is_told_too(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = LAYERS
    if where == "measure":
        monkeypatch.setattr(loop, "measure", out)
    else:
        phase = replace(phase, **{"callback" if where == "set_up" else "finish": out})
    with pytest.raises(OutOfMemory, match=r"memory ran out in full full.*Take a smaller"):
        whole_run(tmp_path, phase)


def whole_run(place: Path, phase: Phase, **changed: Any) -> course.Course:
    model, given = network(), data(*pixels())
    whole = {"train": given, "validation": given}
    return course.run(
        model, [phase], lambda one: start(model, one, place, given, **changed), whole, training.scaled, place, "full"
    )


def test_what_comes_after_the_epochs_judges_in_smaller_batches_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = loop.measure

    def watching(network: Any, given: Any, decision: Any, batch: int, *rest: Any) -> dict[str, float]:
        sizes.append(batch)
        return real(network, given, decision, batch, *rest)

    def finish(end: End) -> dict[str, float]:
        end.renew_statistics()
        return {}

    monkeypatch.setattr(loop, "measure", watching)
    renewed: list[int] = []
    renew = loop.renew_statistics
    monkeypatch.setattr(loop, "renew_statistics", lambda n, d, s, v: renewed.append(s.batch_size) or renew(n, d, s, v))
    with room_for(4):
        whole_run(tmp_path, replace(LAYERS, finish=finish))
    assert sizes == [4, 4], "after the epoch, and after what came then"
    assert renewed == [4]


class Fixed(Pieces):
    """Known from the first step on."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, max(2, value))


def test_a_killed_run_goes_on_in_the_same_pieces(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Dying(Callback):
        steps = 0

        def after_step(self) -> None:
            self.steps += 1
            if self.steps == 5:  # in the second epoch
                raise Killed

    two = replace(LAYERS, epochs=2)
    with room_for(4):
        expected, _ = train(tmp_path / "whole", two)
        with pytest.raises(Killed):
            train(tmp_path / "cut", replace(two, callback=Dying))
    resumed, state = train(tmp_path / "cut", two)  # with memory enough, it keeps to what it had begun
    assert state.pieces == 2
    states = expected.state_dict(), resumed.state_dict()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_penalty_of_weights_counts_once(tmp_path: Path) -> None:
    class Constant(Callback):
        def penalty(self, step: Step) -> torch.Tensor:
            return self.start.model.head.bias.sum() * 0 + 7.0

    phase = replace(LAYERS, callback=Constant)
    _, plain = train(tmp_path / "whole", LAYERS)
    with room_for(4):
        _, state = train(tmp_path / "cut", phase)
    assert state.history[0]["train_loss"] == pytest.approx(plain.history[0]["train_loss"] + 7, rel=1e-4)


def test_the_record_says_it(tmp_path: Path, make_job: Callable[..., Job], capsys: pytest.CaptureFixture[str]) -> None:
    upstream(tmp_path)
    settings: dict[str, Any] = {"strategy": {"name": "full", "epochs": 1}, "references": []}
    with room_for(4):
        once = digests(run(make_job, tmp_path, **settings)[1].building)
        _, job = run(make_job, tmp_path, **settings)
    assert digests(job.building) == once
    assert "in 2 pieces" in read_json(job.building / "runs/main/run.json")["note"]
    assert (
        "memory ran out in epoch 1, step 1; from here on each batch is computed in 2 pieces" in capsys.readouterr().err
    )
    _, job = run(make_job, tmp_path, **settings)
    assert "pieces" not in read_json(job.building / "runs/main/run.json")["note"]


@pytest.mark.parametrize(("told", "means"), [
    ("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried", True),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
    ("mat1 and mat2 shapes cannot be multiplied", False),
])  # fmt: skip
def test_what_says_that_memory_ran_out(told: str, means: bool) -> None:
    assert memory.ran_out(RuntimeError(told)) is means


def test_what_does_not_fit_in_the_smallest_pieces_says_what_to_change(tmp_path: Path) -> None:
    with room_for(1), pytest.raises(OutOfMemory, match=r"in 4 pieces. Take a smaller image size"):
        train(tmp_path)
    with pytest.raises(OutOfMemory, match=r"Lower finetune\.batch_size"):
        Pieces().double(32, processes=2)
    with pytest.raises(OutOfMemory, match="Take a smaller"), memory.told("a step"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="another"), memory.told("a step"):
        raise RuntimeError("another")


def test_pieces_are_of_nearly_equal_size() -> None:
    from components.finetune.batches import Batch

    batch = Batch((np.arange(10).reshape(5, 2),), np.arange(5), 9)
    pieces = batch.pieces(2)
    assert [list(piece.places) for piece in pieces] == [[0, 1, 2], [3, 4]]
    assert [piece.inputs[0].shape for piece in pieces] == [(3, 2), (2, 2)]
    assert {piece.num for piece in pieces} == {9}
