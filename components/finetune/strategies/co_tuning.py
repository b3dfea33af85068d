"""Co-tuning: the pretrained classifier trains too, on what the new labels are in terms of the old ones.

What: one phase over backbone, new head and old classifier; beside the loss on the new labels stands
weight * cross-entropy of the old classifier's answers against p(old label | new label of the sample). That relation is
learnt before training: from the old classifier's probabilities on the training samples by a multinomial logistic
regression p(new | old) and Bayes' rule (`reverse`, the paper's), or as their mean over each label (`direct`). The
regression's ridge is chosen by log loss over folds of the training samples, which also calibrates it. The old
classifier is taken away in the end.
When: few samples of labels that have likes among the old ones (birds, cars after ImageNet).
Not when: labels that are sets (run.decision: multi_label; refused), networks without a classifier (texts; refused), or
labels that the old ones hardly tell apart: the relation is then nearly the same for all, and the network may come to
give one answer to everything. Look at the validation figures, and lower `weight` where they do not move.
Settings: epochs, weight, relation, source_temperature, learning_rate (head), backbone_learning_rate (and the old
classifier), frozen_norm.
Cost: that of `full`, the classifier once a step, and some seconds for the relation.
Evidence here: tests/quality/table.py, 16 samples a label, one seed, 2026-11-22, accuracy against `full` at equal
budget: digits 0.966 (0.942), MNIST 0.891 (0.824), emoji 0.051 (0.494): there it collapsed.
Source: You, Kou, Long and Wang, Co-tuning for transfer learning, NeurIPS 2020, sections 3.2 and 3.3; weight 2.3 is
the authors' code's. They calibrate the old classifier on the source's validation samples, which are not here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components import params
from components.contracts import InputError
from components.finetune.phases import Callback, Groups, Phase, Start, Step, everything
from components.finetune.source_task import over_mixture, source_head

if TYPE_CHECKING:
    import numpy as np
    import torch

    from components.model import TransferModel


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    weight: float = Field(default=2.3, ge=0, le=1e6)
    """Of the old labels against the new ones (the paper's lambda)."""
    relation: Literal["reverse", "direct"] = "reverse"
    """How p(old label | new label) is learnt."""
    source_temperature: float = Field(default=1.0, gt=0, le=100)
    """The old classifier's logits are divided by it where the relation is learnt; above 1 where it is overconfident."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the pretrained weights, the old classifier's among them."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""


def phases(params: Params) -> list[Phase]:
    """One phase over everything, the old classifier included."""

    def groups(model: TransferModel) -> Groups:
        found = everything(params.learning_rate, params.backbone_learning_rate)(model)
        old = list(model.get_submodule(OLD).parameters())
        return [*found, {"name": OLD, "params": old, "lr": params.backbone_learning_rate}]

    callback = partial(OldLabels, options=params)
    return [Phase("co_tuning", params.epochs, groups, frozen_norm=params.frozen_norm, callback=callback)]


OLD = "source_head"
"""Name that the old classifier has in the model while it trains."""


class OldLabels(Callback):
    """The old classifier, and what it should answer for each new label."""

    def __init__(self, start: Start, options: Params) -> None:
        import torch

        from components.finetune import relation

        super().__init__(start)
        if (decision := start.decision.__name__.rpartition(".")[2]) != "single_label":
            raise InputError(
                f"finetune.strategy: co_tuning relates one new label to the old ones, and run.decision is {decision}. "
                "Take lwf, l2_sp or ewc, or run.decision: single_label"
            )
        self.weight = options.weight
        classifier = source_head(start, "co_tuning")
        with torch.no_grad():
            logits = classifier(torch.from_numpy(start.features()).to(start.fabric.device)).double().cpu()
        old = torch.softmax(logits / options.source_temperature, dim=1)
        new = torch.from_numpy(start.train.targets)
        num = start.model.head.out_features
        if options.relation == "reverse":
            found = relation.reverse(old, new, num, start.settings.seed)
        else:
            found = relation.direct(old, new, num)
        self.relation = found.float()
        start.model.add_module(OLD, classifier.train())

    def penalty(self, step: Step) -> torch.Tensor | None:
        """Cross-entropy against the old labels' probabilities, mean over the samples."""
        import torch.nn.functional as F

        answers = self.start.model.get_submodule(OLD)(step.features.float())

        def against(places: np.ndarray) -> torch.Tensor:
            return F.cross_entropy(answers, self.relation[self.start.train.targets[places]].to(answers))

        return self.weight * over_mixture(step, against)

    def close(self) -> None:
        """The old classifier has served."""
        delattr(self.start.model, OLD)
