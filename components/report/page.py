"""The page: sections in their order, drawn by the templates. Every text is escaped."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from components.report import data_sections as data
from components.report import formats
from components.report import model_sections as model
from components.report import quality_sections as quality
from components.report.advice import suggest
from components.report.blocks import Section
from components.report.facts import Facts
from components.report.training_section import training
from components.report.transfer_section import transfer

_HERE = Path(__file__).parent


def sections(facts: Facts, preview: bytes | None, num_classes_shown: int) -> list[Section]:
    """All sections below the headline, in the order of the page."""
    return [
        model.rules(facts),
        model.choice(facts),
        transfer(facts),
        training(facts),
        quality.quality(facts),
        quality.confusion(facts, num_classes_shown),
        quality.labels(facts),
        quality.calibration(facts),
        quality.groups(facts),
        data.drift(facts),
        data.data(facts),
        data.augmentation(facts, preview),
        data.lineage(facts),
        data.limits(facts),
        data.next_steps(facts),
    ]


def render(facts: Facts, preview: bytes | None, name: str, task: str, num_classes_shown: int) -> str:
    """The whole page as HTML."""
    values: dict[str, Any] = {
        "name": name,
        "task": formats.name(task),
        "banner": model.banner(facts),
        "first_step": next(iter(suggest(facts, 1)), None),
        "cards": model.cards(facts),
        "sections": sections(facts, preview, num_classes_shown),
    }
    return drawn(values)


def drawn(values: dict[str, Any]) -> str:
    """A page by its name, task, banner, first_step, cards and sections."""
    templates = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(data_uri=_data_uri, ticks=_ticks, breakable=_breakable)
    style = Markup((_HERE / "page.css").read_text("utf-8"))
    return templates.get_template("page.html.j2").render({**values, "style": style})


def _ticks(text: str | Markup) -> Markup:
    """Text between backticks as code; drawings pass as they are."""
    if isinstance(text, Markup):
        return text
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _breakable(text: str) -> Markup:
    """A long name may break after its underscores, slashes and dots."""
    return Markup(re.sub(r"([_/.])(?=\w)", r"\1<wbr>", str(escape(text))))


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
