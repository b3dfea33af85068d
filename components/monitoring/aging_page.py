"""The page of a backtest: the sentence, two pictures, every figure. One file, no script; every text is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.contracts import Interval
from components.monitoring.aging import Age, Cell


def share(one: Interval) -> str:
    """An accuracy with its interval."""
    return f"{one.value:.1%} ({one.low * 100:.1f} to {one.high * 100:.1f})"


def points(one: Interval) -> str:
    """A difference of accuracies, in points."""
    return f"{one.value * 100:+.1f} ({one.low * 100:+.1f} to {one.high * 100:+.1f})"


def render(told: dict[str, Any], cells: Sequence[Cell], ages: Sequence[Age]) -> str:
    """The whole page as HTML. `told`: name, period, headline, models, notes."""
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("aging.html.j2")
    picture = base64.b64encode(draw(cells, ages, str(told["period"]))).decode()
    return template.render(**told, cells=cells, ages=ages, picture=picture, share=share, points=points)


def draw(cells: Sequence[Cell], ages: Sequence[Age], period: str) -> bytes:
    """Accuracy by age with its interval, and cut by period as a map; PNG."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1, 1.2))
    xs = [one.age for one in ages]
    middle = np.array([one.accuracy.value for one in ages])
    spread = np.array([[one.accuracy.value - one.accuracy.low, one.accuracy.high - one.accuracy.value] for one in ages])
    axes[0].errorbar(xs, middle, yerr=spread.T, marker="o", capsize=3)
    axes[0].set(title="Accuracy by age", xlabel=f"whole {period}s since training", ylabel="accuracy")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    rows, columns = sorted({c.cut for c in cells}), sorted({c.period for c in cells})
    grid = np.full((len(rows), len(columns)), np.nan)
    for one in cells:
        grid[rows.index(one.cut), columns.index(one.period)] = one.accuracy.value
    shown = axes[1].imshow(grid, aspect="auto", cmap="viridis")
    axes[1].set(title="Trained before (row), judged on (column)")
    axes[1].set_yticks(range(len(rows)), rows)
    axes[1].set_xticks(range(len(columns)), columns, rotation=60, ha="right")
    figure.colorbar(shown, ax=axes[1], label="accuracy")
    store = io.BytesIO()
    figure.savefig(store, dpi=110)
    plt.close(figure)
    return store.getvalue()
