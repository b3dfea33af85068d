"""What the device decides. No GPU is at hand in tests: what runs there is only decided here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from tiny_training import params, run, upstream
from training import data, network, pixels, start

from components.contracts import InputError, read_json
from components.finetune import hardware, loop
from components.finetune.memory import OutOfMemory
from components.finetune.phases import Callback, Phase, everything
from components.job import Job

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("wanted", "device", "able", "given"),
    [
        ("auto", CPU, True, "32-true"),
        ("32", CUDA, True, "32-true"),
        ("auto", CUDA, True, "bf16-mixed"),
        ("auto", CUDA, False, "16-mixed"),
        ("fp16", CUDA, True, "16-mixed"),
        ("bf16", CPU, True, "bf16-mixed"),
    ],
)
def test_the_format_that_the_device_has(
    wanted: str, device: torch.device, able: bool, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: able)
    assert hardware.precision(wanted, device, "native") == given


@pytest.mark.parametrize(("wanted", "device"), [("fp16", CPU), ("bf16", CPU), ("bf16", CUDA)])
def test_a_format_that_it_has_not_says_what_to_take(
    wanted: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a CPU is pinned to avx2, where bf16 is emulated."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(InputError, match=r"finetune\.precision.*[Tt]ake auto"):
        hardware.precision(wanted, device, "avx2")


def test_a_fused_optimiser_only_where_gradients_can_be_clipped() -> None:
    assert hardware.optimiser_options(CUDA, "bf16-mixed") == {"fused": True}
    assert hardware.optimiser_options(CUDA, "16-mixed") == {}
    assert hardware.optimiser_options(CPU, "32-true") == {}


@pytest.mark.parametrize(
    ("room", "samples", "size"), [(100, 10**6, 64), (10**6, 10**6, 1024), (10**6, 2000, 64), (6, 50, 4)]
)
def test_the_largest_batch_that_fits_and_leaves_steps_enough(room: int, samples: int, size: int) -> None:
    assert hardware.largest_batch(lambda num: num <= room, samples) == size


def test_a_network_of_which_no_batch_fits_is_told() -> None:
    with pytest.raises(OutOfMemory, match="not even 2 samples"):
        hardware.largest_batch(lambda num: False, 100)


def test_compiling_must_save_twice_what_it_costs() -> None:
    """ResNet-50 at 224 px has 4.1e9 multiply-adds: batches of 64 take 39 ms by what is assumed."""
    steps = 2 * 90 / (0.15 * 3 * 64 * 4.1e9 / 2e13)
    assert not hardware.compiling_pays(int(steps), 64, 4.1e9)
    assert hardware.compiling_pays(int(steps) + 1, 64, 4.1e9)
    assert steps == pytest.approx(30488, rel=1e-3)


def test_multiply_adds_are_counted_and_the_mode_stays() -> None:
    layer = torch.nn.Linear(10, 7).train()
    assert hardware.macs_of(layer, (torch.zeros(3, 10),)) == 210
    assert layer.training


def test_nothing_is_compiled_without_a_gpu_and_compiling_leaves_no_trace() -> None:
    model = network()
    assert not hardware.compile_where_it_pays(model.backbone, (pixels()[0][:1],), CPU, 10**9, 64)
    before = list(model.state_dict())
    model.backbone.compile(backend="eager", dynamic=True)
    assert list(model.state_dict()) == before
    hardware.uncompile(model.backbone)
    assert model.backbone._compiled_call_impl is None


def test_a_run_with_a_scaled_loss_goes_on_with_its_scale(tmp_path: Path) -> None:
    """fp16 is for GPUs; its bookkeeping runs on a CPU too, with bf16 in its place."""
    phase = Phase("full", 3, everything(0.01, 0.001))
    plugin = MixedPrecision("bf16-mixed", "cpu")
    plugin.scaler = torch.amp.GradScaler("cpu", growth_interval=2)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[plugin])

    class Cut(BaseException):
        pass

    class Cutting(Callback):
        steps = 0

        def after_step(self) -> None:
            self.steps += 1
            if self.steps == 4:
                raise Cut

    def train(name: str, phase: Phase) -> tuple[bytes, dict[str, float]]:
        model = network()
        begun = start(model, phase, tmp_path, data(*pixels()), precision="16-mixed")
        object.__setattr__(begun, "fabric", fabric)
        state = loop.train_phase(begun, phase, tmp_path / f"{name}.safetensors", name)
        return model.head.weight.detach().numpy().tobytes(), state.scaler

    whole = train("whole", phase)
    with pytest.raises(Cut):
        train("cut", Phase(phase.name, phase.epochs, phase.groups, callback=Cutting))
    assert train("cut", phase) == whole
    assert whole[1]["scale"] > 65536


def test_a_batch_size_left_to_us_is_32_on_a_cpu_and_the_record_says_so(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    upstream(tmp_path)
    probe = {"strategy": {"name": "linear_probe", "epochs": 1}, "references": []}
    _, job = run(make_job, tmp_path, **probe, batch_size="auto")
    assert "batches of 32, by the memory there was" in read_json(job.building / "runs/main/run.json")["note"]
    with pytest.raises(ValueError, match="whole number from 2 to 4096"):
        params(batch_size=1)
