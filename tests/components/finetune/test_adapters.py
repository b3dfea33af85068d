"""LoRA: adapters are where they can be, and merged they are the network that was trained, kept and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_encoders
import tiny_training
import torch
import training
from torch import nn
from training import network, pixels

from components import plugins
from components.contracts import InputError
from components.finetune import adapters
from components.job import Job
from components.model import TransferModel, load_run


class Named(nn.Module):
    """Features as they are given; a layer for each case of `adaptable`."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.unused, self.by_hand = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.tied, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.tied.weight
        self.silent = nn.Linear(6, 6)
        nn.init.zeros_(self.silent.weight)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.convolution, self.wide = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 4, 3, dilation=2, padding=2)
        self.grouped, self.around = nn.Conv1d(4, 4, 1, groups=2), nn.Conv1d(4, 4, 1, padding_mode="circular")
        self.standardised = Standardised(4, 1, 3, padding=1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = self.normed(self.other(self.tied(self.silent(rows) + self.linear(rows))))
        rows = nn.functional.linear(rows, self.by_hand.weight, self.by_hand.bias)
        rows = self.around(self.grouped(self.wide(self.convolution(rows.unsqueeze(1)))))
        return self.standardised(rows).squeeze(1)


class Standardised(nn.Conv1d):
    """As in networks without normalisation."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std().clamp(min=1e-6)
        return nn.functional.conv1d(rows, weight, self.bias, padding=self.padding)


def toy() -> tuple[TransferModel, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = TransferModel(Named(), 3)
    nn.init.normal_(model.head.weight)
    return model, [torch.randn(5, 6)]


def stir(backbone: nn.Module) -> None:
    """Adapters begin with a correction of 0."""
    for number, weight in enumerate(adapters.weights(backbone)):
        nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(number))


def test_layers_that_can_be_merged_into_are_found_and_no_others() -> None:
    model, inputs = toy()
    assert adapters.adaptable(model.backbone, inputs) == ["linear", "convolution"]


def test_it_is_checked_in_full_float32_whatever_the_device_takes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions on a GPU are of TF32 else, whose rounding is more than a check allows."""
    found: list[tuple[bool, str, bool]] = []
    real = adapters.functional_call

    def watching(*given: object) -> torch.Tensor:
        cudnn = torch.backends.cudnn
        found.append((cudnn.allow_tf32, torch.get_float32_matmul_precision(), cudnn.enabled))
        return real(*given)

    monkeypatch.setattr(adapters, "functional_call", watching)
    torch.set_float32_matmul_precision("high")
    try:
        model, inputs = toy()
        adapters.add(model.backbone, adapters.adaptable(model.backbone, inputs), 2, 4, 0.0, seed=1)
        adapters.merge(model, inputs)
        assert set(found) == {(False, "highest", True)}
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_merged_weight_is_the_old_one_and_the_scaled_product_of_the_two() -> None:
    model, inputs = toy()
    old = {k: v.clone() for k, v in model.state_dict().items()}
    adapters.add(model.backbone, ["linear", "convolution"], rank=2, alpha=6, dropout=0.0, seed=1)
    stir(model.backbone)
    pairs = {k: v.detach().double().numpy() for k, v in model.backbone.named_parameters() if ".lora_" in k}
    first, second = (pairs[f"linear.lora_{m}.default.weight"] for m in "AB")
    third, fourth = (pairs[f"convolution.lora_{m}.default.weight"] for m in "AB")
    assert adapters.merge(model, inputs) < 1e-6
    new = model.state_dict()
    assert list(new) == list(old), "it is a plain network again"
    changed = {k for k in old if not torch.equal(old[k], new[k])}
    assert changed == {"backbone.linear.weight", "backbone.convolution.weight"}
    apart = {k: (new[k].double() - old[k].double()).numpy() for k in changed}
    np.testing.assert_allclose(apart["backbone.linear.weight"], 3 * second @ first, atol=1e-6)
    np.testing.assert_allclose(
        apart["backbone.convolution.weight"], 3 * np.einsum("or,rik->oik", fourth[..., 0], third), atol=1e-6
    )


def test_a_layer_or_a_network_that_is_merged_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners import lora

    model, inputs = toy()
    adapters.add(model.backbone, ["linear"], rank=2, alpha=6, dropout=0.0, seed=1)
    stir(model.backbone)
    real = lora.Linear.get_delta_weight
    with monkeypatch.context() as patch:
        patch.setattr(lora.Linear, "get_delta_weight", lambda *given: 1.01 * real(*given))
        with pytest.raises(adapters.MergeError, match=r"backbone\.linear \(Linear\).*full, llrd or partial"):
            adapters.merge(model, inputs)
    monkeypatch.setattr(lora.Linear, "merge", lambda _: None)
    with pytest.raises(adapters.MergeError, match="the network then gives something else"):
        adapters.merge(model, inputs)


@pytest.mark.parametrize("family", tiny_encoders.FAMILIES)
def test_every_family_of_text_encoders_can_be_adapted_and_merged(family: str, tmp_path: Path) -> None:
    backbones, task = (plugins.load(*n) for n in (("backbones", "transformers"), ("tasks", "text_classification")))
    chosen = backbones.Params.model_validate(tiny_encoders.options(tiny_encoders.saved(family, tmp_path)))
    how = backbones.preprocessing(chosen)
    model = TransferModel(backbones.build(chosen), 3)
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    old = {k: v.clone() for k, v in model.state_dict().items()}
    inputs = [torch.from_numpy(a) for a in task.example(how, 3)]
    layers = adapters.adaptable(model.backbone, inputs)
    kinds = {type(model.backbone.get_submodule(name)).__name__ for name in layers}
    assert kinds == ({"Conv1D"} if family == "gpt2" else {"Linear"})
    assert len(layers) >= 6, layers
    adapters.add(model.backbone, layers, rank=2, alpha=4, dropout=0.0, seed=1)
    stir(model.backbone)
    assert adapters.merge(model, inputs) < 1e-5
    changed = {k.removesuffix(".weight") for k, v in model.state_dict().items() if not torch.equal(old[k], v)}
    assert changed == {f"backbone.{name}" for name in layers}


def test_what_lora_leaves_is_what_it_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from outside, on all rows; and only adapters and head were in the optimiser."""
    rows = torch.from_numpy(pixels()[0])
    real, seen = adapters.merge, []

    def watching(model: TransferModel, inputs: list[torch.Tensor]) -> float:
        trains = {k for k, p in model.named_parameters() if p.requires_grad}
        assert trains == {k for k, _ in model.named_parameters() if ".lora_" in k or k.startswith("head.")}
        share = sum(p.numel() for p in model.parameters() if p.requires_grad)
        with torch.inference_mode():
            before = model.eval()(rows)
            off = real(model, inputs)
            seen.append((before, model(rows), share / sum(p.numel() for p in model.parameters())))
        return off

    monkeypatch.setattr(adapters, "merge", watching)
    fresh = network().backbone.eval()
    model, done = training.run("lora", tmp_path, {"epochs": 5, "rank": 2})
    ((before, after, share),) = seen
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert done.found == {"trainable_share": pytest.approx(share, abs=1e-6)}
    with torch.inference_mode():
        assert float((model.backbone(rows) - fresh(rows)).abs().max()) > 1e-2, "the backbone has learnt"


def test_lora_on_a_backbone_without_such_layers_says_what_to_take(tmp_path: Path) -> None:
    class Bare(nn.Module):
        num_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.norm(rows).mean((2, 3))

    with pytest.raises(InputError, match=r"finetune\.strategy: lora found no .* take full"):
        training.run("lora", tmp_path, {"epochs": 1}, TransferModel(Bare(), 3))


def test_a_merged_model_is_kept_read_and_exported_as_any_other(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    import onnxruntime

    from components.export.network import Deployed
    from components.export.targets import onnx as target

    tiny_training.upstream(tmp_path)
    given = {"strategy": {"name": "lora", "epochs": 1, "rank": 2}, "references": []}
    metrics, job = tiny_training.run(make_job, tmp_path, **given)
    first = tiny_training.digests(job.building)
    assert 0.05 < metrics["trainable_share_main"] < 0.5
    _, job = tiny_training.run(make_job, tmp_path, **given)
    assert tiny_training.digests(job.building) == first
    model, record = load_run(job.building / "runs/main")
    assert record.strategy["name"] == "lora"
    assert record.found == {"trainable_share": metrics["trainable_share_main"]}
    assert list(model.state_dict()) == list(network().state_dict())
    deployed = Deployed(model, 1.5, plugins.load("decisions", "single_label")).eval()
    rows = pixels()[0]
    target.export(deployed, {"pixels": rows[:3]}, deployed.outputs, tmp_path / "model.onnx", target.Params())
    found = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(None, {"pixels": rows})
    with torch.inference_mode():
        for own, theirs in zip(deployed(torch.from_numpy(rows)), found):
            np.testing.assert_allclose(own.numpy(), theirs, atol=1e-5, rtol=1e-4)
