"""Two sides held against each other by the chosen detectors: rows, flat figures, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.drift import columns as rules
from components.drift.columns import Judged, Report
from components.drift.embeddings import TooFew
from components.plugins import Choice

if TYPE_CHECKING:
    from components.drift.sides import Side


def columns(choice: Choice, before: Side, now: Side, with_labels: bool, report: Report) -> list[Judged]:
    """A verdict on each column that both sides have."""
    from components.drift import sides

    every = sides.columns(before, now, with_labels=with_labels)
    compared = [one for one in every if not rules.why_not(one)]
    p_values = choice.load().score_columns(choice.params, compared, report) if compared else {}
    return rules.judge(every, p_values, choice.name, choice.params.alpha)  # type: ignore[attr-defined]


def embeddings(choice: Choice, before: Side, now: Side, seed: int) -> dict[str, Any]:
    """What the network sees, as a whole."""
    module, alpha = choice.load(), choice.params.alpha  # type: ignore[attr-defined]
    told = {
        "detector": choice.name,
        "reference": "validation",
        "threshold": alpha,
        "direction": module.DIRECTION,
    }
    try:
        shift = module.score_embeddings(choice.params, before.embeddings, now.embeddings, seed)
    except TooFew as few:
        return {**told, "score": None, "p_value": None, "drifted": None, "note": f"not compared: {few}"}
    return {
        **told,
        "score": float(f"{shift.score:.9g}"),  # the last bits are the linear algebra library's
        "p_value": shift.p_value,
        "drifted": shift.p_value <= alpha,
        "num_reference": shift.num_reference,
        "num_current": shift.num_current,
        "note": "",
    }


def figures(judged: Sequence[Judged], whole: dict[str, Any]) -> dict[str, float]:
    """num_columns (compared), num_columns_drifted, share_of_columns, embeddings_score, embeddings_p_value,
    embeddings_drifted; what could not be measured is absent."""
    compared = [one for one in judged if one.p_value is not None]
    flat = {"num_columns": float(len(compared))}
    if compared:
        drifted = sum(one.drifted for one in compared)
        flat |= {"num_columns_drifted": float(drifted), "share_of_columns": drifted / len(compared)}
    if whole["p_value"] is not None:
        flat |= {f"embeddings_{key}": float(whole[key]) for key in ("score", "p_value", "drifted")}
    return flat


def headline(judged: Sequence[Judged], whole: dict[str, Any], told: str) -> str:
    """Both in a sentence or two; `told` is what the current samples are called."""
    compared = [one for one in judged if one.p_value is not None]
    drifted = sorted((one for one in compared if one.drifted), key=lambda one: one.score or 0.0)
    if whole["p_value"] is None:
        network = f"The embeddings were {whole['note']}"
    else:
        network = "The embeddings have drifted" if whole["drifted"] else "The embeddings show no drift"
        network += f" (p = {whole['p_value']:.2g})"
    if not compared:
        return f"No column of {told} could be compared. {network}."
    if not drifted:
        return f"0 of {len(compared)} columns of {told} differ from the reference. {network}."
    names = ", ".join(one.column for one in drifted[:4]) + (" and more" if len(drifted) > 4 else "")
    return f"{len(drifted)} of {len(compared)} columns of {told} differ from the reference ({names}). {network}."
