"""The ladder as a picture: time against loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from components.export.ladder import Rung


def draw(rungs: Sequence[Rung], costs: dict[str, dict[str, Any]], variant: str, max_loss: float, path: Path) -> None:
    """Milliseconds at batch 1 against the accuracy lost on validation with its interval; what ships is filled."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, rung in enumerate(r for r in rungs if r.name in costs):
        gain = rung.losses["validation"].gain
        at, lost = costs[rung.name]["latency_ms"]["1"]["low"], -100 * gain.value
        ends = [[max(0.0, lost + 100 * gain.high)], [max(0.0, -100 * gain.low - lost)]]
        face = f"C{number}" if rung.name == variant else "white"
        axes.errorbar([at], [lost], yerr=ends, fmt="o", color=f"C{number}", markerfacecolor=face, capsize=4)
        told = f"{rung.name}, {rung.size_mb:.1f} MB" + (" (ships)" if rung.name == variant else "")
        axes.annotate(told, (at, lost), xytext=(7, 5 + 14 * number), textcoords="offset points", fontsize=9)
    axes.axhline(100 * max_loss, color="0.5", linestyle="--", linewidth=1, label="most that may be lost")
    axes.set_xlabel("milliseconds, one sample")
    axes.set_ylabel("points of accuracy lost (95 % interval)")
    axes.set_xlim(0, 1.4 * max(own["latency_ms"]["1"]["low"] for own in costs.values()))
    axes.margins(y=0.15)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
