"""The leaderboard as a picture: one panel a score, and what each candidate costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from components.select.ranking import Entry, share_won


def draw(ordered: Sequence[Entry], path: Path) -> None:
    """Bars of every score, best candidate on top, and share of comparisons won against multiplications."""
    names = list(ordered[0].scores)
    shown = list(reversed(ordered[:12]))
    titles = [e.title for e in shown]
    height = 1.6 + 0.45 * len(shown)
    figure, axes = plt.subplots(1, len(names) + 1, figsize=(3.4 * (len(names) + 1), height), layout="constrained")
    colours = ["#9db4c8"] * (len(shown) - 1) + ["#1f5f99"]
    for number, (axis, name) in enumerate(zip(axes, names)):
        values = [e.scores[name] for e in shown]
        bars = axis.barh(range(len(shown)), values, color=colours)
        axis.bar_label(bars, fmt="%.3f", padding=3)
        axis.margins(x=0.25)
        axis.set_yticks(range(len(shown)), titles if number == 0 else [""] * len(shown))
        axis.set_title(f"{name} (higher is better)", fontsize=10)
    for entry, colour in zip(shown, colours):
        axes[-1].scatter(entry.cost["gmacs"], share_won(entry, len(ordered)), color=colour, zorder=3)
        axes[-1].annotate(
            entry.title, (entry.cost["gmacs"], share_won(entry, len(ordered))), fontsize=7,
            xytext=(0, 5), textcoords="offset points", ha="center",
        )  # fmt: skip
    axes[-1].margins(0.35)
    axes[-1].set(xlabel="GMACs a sample")
    axes[-1].set_title("share of comparisons won", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
