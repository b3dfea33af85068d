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
    words = {
        "parities": parities(facts),
        "inside_measured": _resize(facts["export"]["inside"].get("measured") or {}),
    }
    return _front_matter(facts) + environment.get_template("card.md.j2").render(facts, human=HUMAN, **words)


def parities(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was compared with the trained network in torch -> how far it is from it, what ships first."""
    own = facts["shipped"]
    float32 = {} if own["exact"] else {"the float32 network (fp32)": facts["export"]["parity"]}
    return {own["title"]: own["parity"], **float32}


def _resize(measured: dict[str, Any]) -> str:
    """How far the pixels that the graph makes are from those of the training code, in words."""
    if "num_images" not in measured:
        return str(shown(measured))
    if not measured["num_different"]:
        return "all {num_values} values of {num_images} images are the same".format(**measured)
    told = "{num_different} of {num_values} values of {num_images} images differ, by at most {max_abs} of 255"
    return told.format(**measured)


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
    own = facts["shipped"]
    measured = {k: v.get("value") for k, v in own["measures"].items() if v.get("value") is not None}
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
                        "split": own["split"],
                    },
                    "metrics": [
                        {"type": k, "value": round(v, 6), "name": f"{k} of {own['title']}"}
                        for k, v in sorted(measured.items())
                    ],
                }
            ],
        }
    ]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---", "", ""])
