"""What new labels are in terms of old ones: p(old label | new label), [K, S], each row summing to 1.

From the old classifier's probabilities of samples with new labels: You, Kou, Long and Wang, Co-tuning for transfer
learning, NeurIPS 2020, section 3.3. In float64 and without a random number but the folds', which are keyed.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from components import samples

RIDGES = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
"""Of the regression, against the sum of the log losses; the strongest first."""
FOLDS = 3
ITERATIONS = 60
"""Of L-BFGS: what is asked of the regression is a relation, not its last digit."""


def direct(old: torch.Tensor, new: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Mean of the old probabilities [N, S] over the samples of each new label [N]; of all samples for a label that
    has none."""
    found = [old[new == label].mean(0) if bool((new == label).any()) else old.mean(0) for label in range(num_labels)]
    return torch.stack(found)


def reverse(old: torch.Tensor, new: torch.Tensor, num_labels: int, seed: int) -> torch.Tensor:
    """By Bayes' rule from p(new | old), which a regression without intercept learns: its answer to one old label with
    certainty. The marginal is that of the old labels over the samples."""
    weight = regression(old, new, num_labels, ridge(old, new, num_labels, seed))
    joint = torch.softmax(weight, dim=0) * old.mean(0)
    return joint / joint.sum(1, keepdim=True)


def ridge(old: torch.Tensor, new: torch.Tensor, num_labels: int, seed: int) -> float:
    """The ridge of the lowest log loss on folds left out; of equals the strongest."""
    folds = _folds(new, seed)
    losses = torch.zeros(len(RIDGES), dtype=torch.float64)
    for fold in folds.unique():
        rest, left = folds != fold, folds == fold
        weight = torch.zeros(num_labels, old.shape[1], dtype=torch.float64)
        for i, strength in enumerate(RIDGES if bool(rest.any()) else ()):
            weight = regression(old[rest], new[rest], num_labels, strength, weight)  # begins where the stronger ended
            losses[i] += F.cross_entropy(old[left] @ weight.T, new[left], reduction="sum")
    return RIDGES[int(np.argmin(losses.numpy()))]


def regression(
    old: torch.Tensor, new: torch.Tensor, num_labels: int, ridge: float, begin: torch.Tensor | None = None
) -> torch.Tensor:
    """Weights [K, S] of the multinomial logistic regression of the new labels on the old probabilities, without an
    intercept: the sum of the log losses plus ridge / 2 * |weights|^2 is lowest."""
    weight = torch.zeros(num_labels, old.shape[1], dtype=torch.float64) if begin is None else begin.detach().clone()
    weight.requires_grad_(True)
    search = torch.optim.LBFGS([weight], max_iter=ITERATIONS, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def value() -> torch.Tensor:
        search.zero_grad()
        found = F.cross_entropy(old @ weight.T, new, reduction="sum") + ridge / 2 * weight.square().sum()
        found.backward()
        return found

    search.step(value)
    return weight.detach()


def _folds(new: torch.Tensor, seed: int) -> torch.Tensor:
    """Which fold each sample is left out in; each label goes over the folds in turn."""
    order = torch.from_numpy(samples.keyed_rng(seed, 0, "folds of the relation").permutation(len(new)))
    order = order[torch.argsort(new[order], stable=True)]
    folds = torch.empty(len(new), dtype=torch.int64)
    folds[order] = torch.arange(len(new)) % FOLDS
    return folds
