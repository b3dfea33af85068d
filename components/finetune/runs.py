"""What all runs of `finetune` share, and one run from its first weights to its last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_fabric import Fabric

from components import lineage, plugins, samples
from components.contracts import InputError, RunRecord, inputs_of
from components.features import cached_features, extract
from components.finetune import batches, course, hardware, live, mixing
from components.finetune.batches import Data
from components.finetune.course import Course
from components.finetune.label_keeping import label_keeping
from components.finetune.loop import Settings
from components.finetune.phases import Phase, Start
from components.finetune.scaling import on_scale, standardised
from components.finetune.team import ALONE, Team
from components.job import Job
from components.model import Feed, TransferModel, infer, pick_device
from components.plugins import Choice

if TYPE_CHECKING:
    import pandas as pd

    from components.finetune.stage import Params

SCALE_SAMPLES = 256
"""Training samples whose features tell their scale."""


@dataclass(frozen=True)
class Trained:
    """A run that has ended."""

    model: TransferModel
    """On the CPU, in eval mode."""
    record: RunRecord
    course: Course


class Line:
    """What all runs share: samples, labels, pixels, settings, device."""

    def __init__(
        self,
        params: Params,
        job: Job,
        chosen: dict[str, Any],
        policy: dict[str, Any],
        table: pd.DataFrame,
        team: Team = ALONE,
    ) -> None:
        self.params, self.job, self.chosen, self.policy, self.team = params, job, chosen, policy, team
        self.feed = Feed.of(job.run.task, chosen["preprocessing"])
        self.decision = plugins.load("decisions", job.run.decision)
        self.tables = {name: table[table["split"] == name] for name in ("train", "validation")}
        self.labels = self.decision.labels(self.tables["train"]["label"])
        device = pick_device(job.run.device)
        if device.type == "cuda" and team.size > 1 and team.local_rank >= torch.cuda.device_count():
            raise InputError(
                f"finetune.processes: each needs a CUDA device of its own; a machine has {team.local_rank + 1} or more "
                f"of them, and torch sees {torch.cuda.device_count()} there. Take fewer, or run.device: cpu"
            )
        precision = hardware.precision(params.precision, device, job.run.instruction_set)
        self.fabric = Fabric(accelerator=device.type, devices=_devices(device.type, team), precision=precision)
        options = params.model_dump(include={"patience", "weight_decay", "label_smoothing", "warmup",
                                             "max_gradient_norm", "schedule", "mixup", "cutmix",
                                             "dropout"})  # fmt: skip
        if params.mixup or params.cutmix:
            mixing.must_be_images(self.feed.example(1), job.run.task)
        if team.rank == 0:
            live.begin(job)
        self.settings: Settings = Settings(
            seed=int(policy["seed"]), batch_size=hardware.ON_CPU, precision=precision, **options
        )
        self.settings = replace(self.settings, batch_size=self._batch_size())
        with team.first_of_machine():
            self.rows = {name: self.feed.prepare(part, job) for name, part in self.tables.items()}
        self.lengths = {name: self.feed.lengths(rows) for name, rows in self.rows.items()}
        self.kept: list[Path] = []

    def _batch_size(self) -> int:
        """Of a step; where it is left to us, by what the device's memory holds."""
        size = self.params.batch_size
        if size != "auto":
            return size
        if self.team.size > 1:
            raise InputError("finetune.batch_size: auto is for one process; with several, give a number")
        if self.fabric.device.type != "cuda":
            return hardware.ON_CPU
        fits = hardware.fits(self.network(pretrained=False), self.feed.example, self.fabric)
        return hardware.largest_batch(fits, len(self.tables["train"]))

    def padding(self) -> dict[str, float]:
        """Computed over real tokens in training, where samples differ in length."""
        train = self._whole("train")
        lengths = train.lengths
        if lengths is None:
            return {}
        found = batches.cuts(len(lengths), lengths, train.kinds, self.settings.batch_size, self.settings.seed, 0)
        return {"computed_over_real_length": round(batches.computed_over_real(lengths, found), 6)}

    def _policy(self) -> Callable[..., Any] | None:
        choice = plugins.choose("augment.policies", self.policy["policy"])
        module = choice.load()
        if self.job.run.task not in module.TASKS:
            raise InputError(
                f"augment.policy: {choice.name} is for {', '.join(module.TASKS)}, not for {self.job.run.task}"
            )
        if choice.name == "identity":
            return None
        vary: Callable[..., Any] = module.build(
            choice.params, cache=self.job.cache("variants"), device=self.job.run.device
        )
        if getattr(vary, "provenance", {}) != self.policy.get("provenance", {}):
            raise InputError(
                f"augment.policy: what {choice.name} rests on is not what it was when `augment` ran. Put it back, or "
                "take the new one: dvc repro --force --single-item augment, then dvc repro."
            )
        return vary

    def labels_kept(self, probe: TransferModel) -> dict[str, float]:
        """Share of training samples whose label, by the frozen probe, survives the policy; nothing without one."""
        vary = self._policy()
        if vary is None:
            return {}
        found = label_keeping(self._whole("train"), vary, probe, self.decision, self.settings.seed, self.fabric.device)
        probe.cpu()
        if found.rate is None:
            return {}
        self.job.say(
            f"policy {self.policy['policy']['name']}: by the frozen probe {found.rate:.1%} of {found.num} training "
            "samples keep their label"
            + (f"; not, for example, {', '.join(found.changed[:3])}" if found.changed else "")
        )
        return {"labels_kept_by_policy": round(found.rate, 6)}

    def train(self, name: str, strategy: dict[str, Any], phases: list[Phase], pretrained: bool) -> Trained:
        """One run from its first weights to its last."""
        choice = plugins.choose("backbones", self.chosen["backbone"])
        model = self.network(pretrained)
        provenance = dict(getattr(model.backbone, "provenance", {}))
        keep = self._keep(name, strategy, pretrained, provenance)
        done = course.run(
            model,
            phases,
            lambda phase: self._start(model, phase),
            {part: self._whole(part) for part in ("train", "validation")},
            lambda phase, start: self._scaled(model, phase, start.train, pretrained),
            keep,
            name,
        )
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
            epochs=len(done.history),
            best_epoch=done.best_epoch,
            num_samples_seen=done.num_samples_seen,
            note="; ".join(self._notes(cached, done.pieces)),
            inputs=inputs_of(self.tables["train"]),
            found=done.found,
        )
        return Trained(model.cpu().eval(), record, done)

    def network(self, pretrained: bool = True) -> TransferModel:
        """What a run begins with, on its device."""
        torch.manual_seed(samples.keyed_seed(self.settings.seed, "initial weights"))
        backbone = self._backbone(plugins.choose("backbones", self.chosen["backbone"]), pretrained)
        model = TransferModel(backbone, len(self.labels))
        model.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def _start(self, model: TransferModel, phase: Phase) -> Start:
        data = {part: self._data(part, model, phase) for part in ("train", "validation")}
        return Start(
            model, data["train"], data["validation"], self.decision, self.settings, self.job, self.fabric, self.team,
            lambda: self.features("train", model), self.source_head,
        )  # fmt: skip

    def source_head(self) -> torch.nn.Linear | None:
        """The pretrained network's own classifier, on this run's device; None where there is none."""
        choice = plugins.choose("backbones", self.chosen["backbone"])
        found: torch.nn.Linear | None = getattr(choice.load(), "source_head", lambda _: None)(choice.params)
        return found if found is None else found.to(self.fabric.device).eval()

    def _notes(self, cached: bool, pieces: int) -> Iterator[str]:
        if cached:
            mixing = " and no mixup or cutmix" if self.settings.mixup or self.settings.cutmix else ""
            yield f"no augmentation{mixing}: features were computed once"
        if self.team.size > 1:
            yield f"trained by {self.team.size} processes; another number gives other last bits"
        if self.params.batch_size == "auto":
            yield f"batches of {self.settings.batch_size}, by the memory there was: state it to have the same anywhere"
        if pieces > 1:
            yield (
                f"memory ran out, so batches of {self.settings.batch_size} were computed in {pieces} pieces: the same "
                "batches, but batch normalisation took its statistics of a piece"
            )

    def _scaled(
        self, model: TransferModel, phase: Phase, train: Data, pretrained: bool
    ) -> AbstractContextManager[None]:
        """The head on features of unit scale: as measured, but of random weights, which do not keep their scale, as
        the architecture says (`feature_scale`, where it says)."""
        if phase.cached:
            return on_scale(model.head, train.rows, each=True)
        if not pretrained:
            scale = float(getattr(model.backbone, "feature_scale", 1.0))
            if scale == 1.0:
                return nullcontext()
            return standardised(
                model.head, torch.zeros(model.head.in_features), torch.full((model.head.in_features,), scale)
            )
        order = samples.keyed_rng(self.settings.seed, 0, "scale").permutation(len(train.rows))[:SCALE_SAMPLES]
        some = train.rows[np.sort(order)]
        job, what = self.job, "the features' scale"
        return on_scale(
            model.head, infer(model.backbone, some, self.feed, self.fabric.device, job.progress, what), each=False
        )

    def _backbone(self, choice: Choice, pretrained: bool) -> Any:
        return choice.load().build(choice.params, pretrained=pretrained, preprocessing=self.feed.preprocessing)

    def _data(self, part: str, model: TransferModel, phase: Phase) -> Data:

        data = self._whole(part)
        if phase.cached:
            return replace(data, rows=self.features(part, model), collate=lambda rows: (rows,), lengths=None)
        return replace(data, augment=self._policy(), mixed=True) if part == "train" else data

    def _whole(self, part: str) -> Data:
        """A split as it is: not augmented, not yet features."""
        table = self.tables[part]
        targets = self.decision.targets(table["label"], self.labels)
        kinds = None if self.lengths[part] is None else self.decision.classes(table["label"])
        return Data(
            self.rows[part], targets, tuple(table["id"]), self.feed.collate, lengths=self.lengths[part], kinds=kinds
        )

    def features(self, part: str, model: TransferModel) -> np.ndarray:
        """Of a split's samples as they are, by the model's backbone as it is: float32 [N, D]; kept by content."""
        job = self.job
        device, instruction_set = self.fabric.device, job.run.instruction_set

        def compute() -> np.ndarray:
            what = f"features of {part}"
            return extract(model.backbone, self.rows[part], self.feed, device, job.progress, what, instruction_set)

        key = self.feed.key(self.tables[part])
        with self.team.first_of_machine():
            return cached_features(model.backbone, key, job.cache("features"), compute, instruction_set)

    def _keep(self, name: str, strategy: dict[str, Any], pretrained: bool, provenance: dict[str, Any]) -> Path:
        """The checkpoint's folder, keyed by all that decides the weights."""
        code = lineage.hashes(self.job.root, (d for d in self.job.declared or () if d.startswith("components/")))
        data = [samples.digest_of(t, list(t["id"]), list(t["label"])) for t in self.tables.values()]
        folder = self.job.work(
            name, strategy, pretrained, self.chosen["backbone"], self.feed.preprocessing, self.policy,
            asdict(self.settings), data, code, self.job.run.model_dump(exclude={"name"}), lineage.environment(),
            provenance, self.team.size,
        )  # fmt: skip
        self.team.must_agree("what decides the weights (data, params, code, libraries)", folder.name)
        self.kept.append(folder)
        return folder

    def forget(self) -> None:
        """The checkpoints have served."""
        for folder in self.kept:
            shutil.rmtree(folder, ignore_errors=True)


def _devices(kind: str, team: Team) -> int | list[int]:
    return [team.local_rank] if kind == "cuda" and team.size > 1 else 1
