"""Train the chosen backbone by the named strategy, and the runs it is compared with.

Reads: validate/accepted.parquet (train and validation splits only), augment/policy.json, select/chosen.json and
select/files (the preprocessing's own files).
Writes: runs/<run>/ (weights.safetensors, run.json, history.csv) for `main` and every reference, history.csv.
Decides: the accepted samples, the policy and its seed, the chosen backbone, the strategy, run.seed, run.threads.
Fails: a policy that is for another task (InputError); a loss that is not a number (TrainingError).
Killed, it goes on from the last epoch and ends with the same bytes.
Does not check: quality. The test split is not read here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from components import lineage, params, plugins, samples
from components.contracts import InputError, RunRecord, read_json, read_table, with_files
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    import pandas as pd

    from components.finetune.loop import Data, Settings
    from components.finetune.phases import Phase
    from components.model import TransferModel

NEEDS = ("validate", "augment", "select")

HISTORY = ("run", "phase", "epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate")


class Params(params.Params):
    """Section `finetune`."""

    strategy: Annotated[Choice, Family("finetune.strategies")]
    """How the weights are adapted."""
    references: list[Literal["from_scratch", "frozen_probe"]]
    """from_scratch: the same architecture from random weights. frozen_probe: a linear head on the frozen backbone."""
    batch_size: int = Field(ge=2, le=4096)
    """Samples a step."""
    precision: Literal["auto", "32", "bf16"]
    """auto: bf16 on a GPU that has it, else 32."""
    patience: int = Field(ge=1)
    """Epochs without a better validation loss before a phase stops; the best epoch's weights are kept."""
    weight_decay: float = Field(ge=0, le=1)
    """Of AdamW."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the target spread over all labels."""
    warmup: float = Field(ge=0, lt=1)
    """Share of the steps over which the learning rate rises; a cosine brings it down to 0 after."""
    max_gradient_norm: float = Field(gt=0)
    """Longer gradients are scaled down to it."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns the validation accuracy of each run, epochs and samples seen of `main`."""
    from components.model import save_run

    chosen = read_json(job.source("select", "chosen.json"))
    chosen["preprocessing"] = with_files(job.source("select", "files"), chosen["preprocessing"])
    table = read_table(job.source("validate", "accepted.parquet")).sort_values("id")
    line = _Line(params, job, chosen, read_json(job.source("augment", "policy.json")), table)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, float] = {}
    plans = _plans(params)
    for name, (strategy, phases, pretrained) in plans.items():
        model, record, history = line.train(name, strategy, phases, pretrained)
        folder = job.out(f"runs/{name}/run.json").parent
        save_run(folder, model, record)
        own = [{"run": name, **row} for row in history]
        _write_csv(folder / "history.csv", own)
        rows += own
        metrics[f"validation_accuracy_{name}"] = history[record.best_epoch - 1]["validation_accuracy"]
        metrics[f"num_samples_seen_{name}"] = float(record.num_samples_seen)
    metrics |= line.padding()
    _write_csv(job.out("history.csv"), rows)
    _picture(rows, job.report("curves.png"))
    line.forget()
    return metrics


def _plans(params: Params) -> dict[str, tuple[dict[str, Any], list[Phase], bool]]:
    """Run -> (strategy as written, its phases, from pretrained weights?). References get main's number of epochs."""
    from components.finetune.phases import Phase, everything

    phases = params.strategy.load().phases(params.strategy.params)
    epochs = sum(p.epochs for p in phases)
    plans = {"main": (params.strategy.spec(), phases, True)}
    for reference in params.references:
        if reference == "frozen_probe":
            probe = plugins.choose("finetune.strategies", {"name": "linear_probe", "epochs": epochs})
            plans[reference] = (probe.spec(), probe.load().phases(probe.params), True)
        else:
            rate = 3e-3  # digits, 3 epochs, validation accuracy: 0.64 at 1e-3, 0.93 at 3e-3
            spec = {"name": "from_scratch", "epochs": epochs, "learning_rate": rate}
            plans[reference] = (spec, [Phase("scratch", epochs, everything(rate, rate))], False)
    return plans


class _Line:
    """What all runs share: samples, labels, pixels, settings, device."""

    def __init__(
        self, params: Params, job: Job, chosen: dict[str, Any], policy: dict[str, Any], table: pd.DataFrame
    ) -> None:
        from lightning_fabric import Fabric

        from components.finetune.loop import Settings
        from components.model import Feed, pick_device

        self.params, self.job, self.chosen, self.policy = params, job, chosen, policy
        self.feed = Feed.of(job.run.task, chosen["preprocessing"])
        self.decision = plugins.load("decisions", job.run.decision)
        self.tables = {name: table[table["split"] == name] for name in ("train", "validation")}
        self.labels = self.decision.labels(self.tables["train"]["label"])
        device = pick_device(job.run.device)
        precision = {"32": "32-true", "bf16": "bf16-mixed"}.get(params.precision) or _auto_precision(device.type)
        self.fabric = Fabric(accelerator=device.type, devices=1, precision=precision)
        options = params.model_dump(include={"batch_size", "patience", "weight_decay", "label_smoothing", "warmup",
                                             "max_gradient_norm"})  # fmt: skip
        self.settings: Settings = Settings(seed=int(policy["seed"]), precision=precision, **options)
        self.rows = {name: self.feed.prepare(part, job) for name, part in self.tables.items()}
        self.lengths = {name: self.feed.lengths(rows) for name, rows in self.rows.items()}
        self.kept: list[Path] = []

    def padding(self) -> dict[str, float]:
        """Computed over real tokens in training, where samples differ in length."""
        from components.finetune import loop

        lengths = self.lengths["train"]
        if lengths is None:
            return {}
        batches = loop.cuts(len(lengths), lengths, self.settings.batch_size, self.settings.seed, 0)
        return {"computed_over_real_length": round(loop.computed_over_real(lengths, batches), 6)}

    def _policy(self) -> Callable[..., Any] | None:
        choice = plugins.choose("augment.policies", self.policy["policy"])
        module = choice.load()
        if self.job.run.task not in module.TASKS:
            raise InputError(
                f"augment.policy: {choice.name} is for {', '.join(module.TASKS)}, not for {self.job.run.task}"
            )
        return None if choice.name == "identity" else module.build(choice.params)

    def train(
        self, name: str, strategy: dict[str, Any], phases: list[Phase], pretrained: bool
    ) -> tuple[TransferModel, RunRecord, list[dict[str, Any]]]:
        """One run from its first weights to its last."""
        import torch

        from components.finetune import loop
        from components.model import TransferModel

        torch.manual_seed(samples.keyed_seed(self.settings.seed, "initial weights"))
        choice = plugins.choose("backbones", self.chosen["backbone"])
        model = TransferModel(self._backbone(choice, pretrained), len(self.labels))
        provenance = dict(getattr(model.backbone, "provenance", {}))
        model = model.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        keep = self._keep(name, strategy, pretrained, provenance)
        history: list[dict[str, Any]] = []
        state = loop.State()
        seen = 0
        for number, phase in enumerate(phases):
            data = {part: self._data(part, model, phase) for part in ("train", "validation")}
            if phase.cached:
                with _standardised(model, data):
                    state = self._phase(model, phase, data, keep / f"{number}.safetensors", name)
            else:
                state = self._phase(model, phase, data, keep / f"{number}.safetensors", name)
            history += [{**row, "epoch": len(history) + 1 + i} for i, row in enumerate(state.history)]
            seen += state.num_samples_seen
        cached = all(p.cached for p in phases)
        record = RunRecord(
            run=name,
            role="candidate" if name == "main" else "reference",
            task=self.job.run.task,
            decision=self.job.run.decision,
            backbone=choice.spec(),
            pretrained=pretrained,
            strategy=strategy,
            labels=self.labels,
            preprocessing=self.feed.preprocessing,
            base_weights=provenance,
            policy={} if cached else self.policy["policy"],
            epochs=len(history),
            best_epoch=len(history) - len(state.history) + state.best_epoch,
            num_samples_seen=seen,
            note="no augmentation: features were computed once" if cached else "",
        )
        return model.cpu().eval(), record, history

    def _backbone(self, choice: Choice, pretrained: bool) -> Any:
        return choice.load().build(choice.params, pretrained=pretrained, preprocessing=self.feed.preprocessing)

    def _phase(self, model: TransferModel, phase: Phase, data: dict[str, Data], keep: Path, name: str) -> Any:
        from components.finetune import loop

        return loop.train_phase(
            model,
            phase,
            data["train"],
            data["validation"],
            self.decision,
            self.settings,
            self.job,
            self.fabric,
            keep,
            name,
        )

    def _data(self, part: str, model: TransferModel, phase: Phase) -> Data:
        from components.finetune.loop import Data

        table, rows = self.tables[part], self.rows[part]
        targets = self.decision.targets(table["label"], self.labels)
        ids = tuple(table["id"])
        if phase.cached:
            return Data(self._features(part, model), targets, ids, lambda rows: (rows,))
        augment = self._policy() if part == "train" else None
        return Data(rows, targets, ids, self.feed.collate, augment, self.lengths[part])

    def _features(self, part: str, model: TransferModel) -> Any:
        from components.model import cached_features, infer

        job = self.job

        def compute() -> np.ndarray:
            what = f"features of {part}"
            return infer(model.backbone, self.rows[part], self.feed, self.fabric.device, job.progress, what)

        return cached_features(model.backbone, self.feed.key(self.tables[part]), job.cache("features"), compute)

    def _keep(self, name: str, strategy: dict[str, Any], pretrained: bool, provenance: dict[str, Any]) -> Path:
        """The checkpoint's folder, keyed by all that decides the weights."""
        code = lineage.hashes(self.job.root, (d for d in self.job.declared or () if d.startswith("components/")))
        data = [samples.digest_of(t, list(t["id"]), list(t["label"])) for t in self.tables.values()]
        folder = self.job.work(
            name, strategy, pretrained, self.chosen["backbone"], self.feed.preprocessing, self.policy,
            asdict(self.settings), data, code, self.job.run.model_dump(exclude={"name"}), lineage.environment(), provenance,
        )  # fmt: skip
        self.kept.append(folder)
        return folder

    def forget(self) -> None:
        """The checkpoints have served."""
        for folder in self.kept:
            shutil.rmtree(folder, ignore_errors=True)


class _standardised:  # noqa: N801  a context, used as a function
    """Within it the head works on standardised features; on leaving, the scaling is folded into the head."""

    def __init__(self, model: TransferModel, data: dict[str, Data]) -> None:
        self.model, self.data = model, data
        rows = np.asarray(data["train"].rows, dtype=np.float64)
        self.mean, scale = rows.mean(axis=0), rows.std(axis=0)
        self.scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-12), scale, 1.0)

    def __enter__(self) -> None:
        from dataclasses import replace

        for part, data in self.data.items():
            rows = ((np.asarray(data.rows, np.float64) - self.mean) / self.scale).astype(np.float32)
            self.data[part] = replace(data, rows=rows)

    def __exit__(self, *error: object) -> None:
        import torch

        head = self.model.head
        with torch.no_grad():
            weight = head.weight.double().cpu() / torch.from_numpy(self.scale)
            head.bias.copy_((head.bias.double().cpu() - weight @ torch.from_numpy(self.mean)).float())
            head.weight.copy_(weight.float())


def _auto_precision(device: str) -> str:
    import torch

    # On CPUs bf16 training was slower than float32 here (156 against 250 images/s), so only a GPU gets it.
    return "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    pd.DataFrame(rows).reindex(columns=[c for c in HISTORY if c in rows[0]]).to_csv(
        path, index=False, float_format="%.8g"
    )


def _picture(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt
    import pandas as pd

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, part in pd.DataFrame(rows).groupby("run"):
        axes[0].plot(part["epoch"], part["validation_loss"], marker=".", label=str(name))
        axes[1].plot(part["epoch"], part["validation_accuracy"], marker=".", label=str(name))
    axes[0].set(title="Loss on validation", xlabel="epoch", yscale="log")
    axes[1].set(title="Accuracy on validation", xlabel="epoch")
    axes[1].legend()
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
