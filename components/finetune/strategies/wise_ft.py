"""WiSE-FT: the weights that are kept lie between those of a linear probe and those fine-tuned from it.

What: the phases of `lp_ft`; then, of the straight line from the probe's weights (alpha 0) to the tuned ones (alpha 1),
head and backbone alike, `num_alphas` points are judged on validation, and the one with the smallest log loss is kept,
of equal ones the nearest to the probe. Where the two differ in the statistics of batch normalisation, those of a point
between are taken anew from the training samples; at both ends they stay as they are.
When: the data at deployment will be shifted against the training data; what the pretrained network knows should stay.
Not when: the data are unlike the pretraining's: the line then leads through weights that are worse than both ends, and
one of these is kept after all.
Settings: probe_epochs, epochs, learning_rate (probe), head_learning_rate, backbone_learning_rate, num_alphas,
frozen_norm.
Cost: that of `lp_ft`, and `num_alphas` passes over the validation samples; with frozen_norm false as many more over
the training samples. `alpha` is in the metrics.
Evidence here: none yet but the contract tests.
Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, section 3; a linear probe in the place of
the zero-shot head, which only networks of image and text have: Kumar et al., ICLR 2022 (see `lp_ft`).
"""

from __future__ import annotations

from pydantic import Field

from components import params
from components.finetune.phases import End, Phase, everything, head_only


class Params(params.Params):
    """Options."""

    probe_epochs: int = Field(default=20, ge=1, le=1000)
    """Passes over the cached features."""
    epochs: int = Field(default=6, ge=1, le=1000)
    """Passes of the second phase."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of the probe, on standardised features."""
    head_learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of the head in the second phase, on features of unit scale."""
    backbone_learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of the pretrained weights in the second phase."""
    num_alphas: int = Field(default=11, ge=2, le=101)
    """Points of the line that are judged, both ends among them."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""


def phases(params: Params) -> list[Phase]:
    """The probe, everything, and the line between."""

    def finish(end: End) -> dict[str, float]:
        return {"alpha": _chosen(end, params.num_alphas)}

    second = everything(params.head_learning_rate, params.backbone_learning_rate)
    return [
        Phase("probe", params.probe_epochs, head_only(params.learning_rate), cached=True),
        Phase("full", params.epochs, second, frozen_norm=params.frozen_norm, finish=finish),
    ]


def _chosen(end: End, num: int) -> float:
    from components.finetune import averaging

    ends = [end.ended(0), averaging.now(end)]
    alphas = [i / (num - 1) for i in range(num)]
    losses: list[float] = []
    for alpha in alphas:
        losses.append(averaging.loss(end, ends, [1 - alpha, alpha]))
        end.start.job.say(f"wise_ft: alpha {alpha:.2f}, loss on validation {losses[-1]:.4f}")
    best = alphas[losses.index(min(losses))]  # the first of equal ones
    averaging.take(end, ends, [1 - best, best])
    return best
