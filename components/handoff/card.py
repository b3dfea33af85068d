"""The model card: Hugging Face's front matter, then what the JSON files say, in words and tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

NOT_MEASURED = "not measured"
HUMAN = "**Human to fill:**"


def render(facts: dict[str, Any]) -> str:
    """The card as markdown. What a file does not say shows as "not measured", never as a guess."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=ChainableUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # markdown; shown takes out what would break a table or be HTML
    )
    return _front_matter(facts) + environment.get_template("card.md.j2").render(facts, human=HUMAN)


def shown(value: Any) -> Any:
    """A value as it may stand in a table of markdown."""
    if value is None or isinstance(value, ChainableUndefined):
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else NOT_MEASURED
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, map(shown, value)))
    if isinstance(value, dict):
        value = ", ".join(f"{k}: {shown(v)}" for k, v in value.items())
    text = " ".join(str(value).split()) if "\n" in str(value) else str(value)
    return text.replace("<", "&lt;").replace("|", "\\|")


def _front_matter(facts: dict[str, Any]) -> str:
    """YAML, each value written as JSON, which YAML contains."""
    tag = facts["record"]["task"].replace("_", "-")  # tasks bear the hub's names
    licence = facts["licence"]
    fields: dict[str, Any] = {"license": licence} if licence else {"license": "other"}
    if not licence:
        fields["license_name"] = "not-stated-by-owner"
    fields |= {"library_name": "onnx", "pipeline_tag": tag, "tags": [tag, "onnx", "transfer-learning"]}
    base = facts["record"]["base_weights"].get("repository")
    if base:
        fields["base_model"] = base
    measured = {k: v.get("value") for k, v in facts["quality"]["test"].items() if v.get("value") is not None}
    fields["metrics"] = sorted(measured)
    fields["model-index"] = [
        {
            "name": facts["name"],
            "results": [
                {
                    "task": {"type": tag},
                    "dataset": {
                        "name": facts["name"],
                        "type": facts["data"]["source"]["name"],
                        "split": "test",
                    },
                    "metrics": [{"type": k, "value": round(v, 6)} for k, v in sorted(measured.items())],
                }
            ],
        }
    ]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---", "", ""])
