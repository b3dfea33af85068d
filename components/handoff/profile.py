"""The reference profile: what later data are held against for drift, without the training data.

Two tables and the embeddings, of at most `num_samples` samples each, in the order of their ids but without them, and
without any content: measured properties and the label of training samples; what the very file that ships says of
validation samples, and its embeddings, so that whoever runs it compares like with like. See components/drift/sides.py
for why those splits. A keyed draw decides which samples.

They are rows of single samples: what a text or an image was can in part be told from its embedding (Song and
Raghunathan, Information leakage in embedding models, 2020). `RISK` says so wherever the profile is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import plugins
from components.contracts import PROPERTY, RunRecord, read_json, read_table, write_atomic, write_table
from components.handoff.bundle import Bundle
from components.job import Job
from components.samples import keyed_seed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FOLDER = "profile"
FILES = ("properties.parquet", "outputs.parquet", "embeddings.safetensors", "profile.json")
TENSOR = "reference"
OUTPUTS = ("predicted", "confidence")
RISK = (
    "profile/ holds rows of single samples: measured properties, labels, and embeddings, from which the content of a "
    "sample can in part be told. Give it only to those who may know that of the samples."
)


def write(bundle: Bundle, job: Job, record: RunRecord, num_samples: int, variant: str) -> dict[str, Any]:
    """Fills profile/ and returns what profile.json says; with `num_samples` 0 nothing, and {}. `variant` is the one
    that ships."""
    if not num_samples:
        return {}
    from safetensors.numpy import save

    accepted = read_table(job.source("validate", "accepted.parquet"))
    train = accepted[accepted["split"] == "train"].sort_values("id", kind="stable")
    said, features = _answers(job, record, accepted)
    properties = train.iloc[_drawn(train["id"], num_samples, job.run.seed)]
    properties = properties[["label", *sorted(c for c in train.columns if c.startswith(PROPERTY))]]
    rows = _drawn(said["id"], num_samples, job.run.seed)
    folder = bundle.folder / FOLDER
    write_table(folder / FILES[0], properties)
    write_table(folder / FILES[1], said.iloc[rows][list(OUTPUTS)])
    write_atomic(folder / FILES[2], save({TENSOR: features[rows]}))
    told = {
        "properties": {
            "file": FILES[0], "split": "train", "num": len(properties), "of": len(train),
            "columns": list(properties.columns),
        },
        "outputs": {
            "file": FILES[1], "split": "validation", "num": len(rows), "of": len(said), "columns": list(OUTPUTS),
            "by": "model.onnx",
        },
        "embeddings": {
            "file": FILES[2], "tensor": TENSOR, "split": "validation", "num": len(rows), "of": len(said),
            "dimensions": int(features.shape[1]), "rows": "as in outputs", "by": "model.onnx",
        },
        "variant": variant,
        "judged_by": _detectors(job),
        "note": "No ids and no content of samples; rows are in the order of the ids. Values are exact. Outputs and "
        f"embeddings are those of model.onnx ({variant}); `baseline` is of the float32 network, on the test split.",
        "risk": RISK,
    }  # fmt: skip
    bundle.record(f"{FOLDER}/{FILES[3]}", told)
    return told


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Properties with labels, outputs, and embeddings float32 [N, D] with rows as in the outputs."""
    from safetensors.numpy import load_file

    names = {one: folder / one for one in FILES}
    return read_table(names[FILES[0]]), read_table(names[FILES[1]]), load_file(names[FILES[2]])[TENSOR]


def _answers(job: Job, record: RunRecord, accepted: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """What the file that ships says of the validation samples, in the order of their ids, and its embeddings."""
    import pandas as pd
    from safetensors.numpy import load_file

    decision = plugins.load("decisions", record.decision)
    ids = accepted.loc[accepted["split"] == "validation", "id"].sort_values(kind="stable")
    outputs = load_file(job.source("export", "outputs.safetensors"))
    probabilities, features = outputs["probabilities"], outputs["embedding"]
    assert len(probabilities) == len(features) == len(ids), "one answer a validation sample"
    said = {
        "id": ids.to_numpy(),
        "predicted": decision.predicted(probabilities, record.labels),
        "confidence": decision.confidence(probabilities.astype("float64")),
    }
    return pd.DataFrame(said), features


def _drawn(ids: pd.Series, most: int, seed: int) -> list[int]:
    """Positions of at most so many, drawn by their ids, in their order."""
    keys = sorted((keyed_seed(seed, "profile", one), position) for position, one in enumerate(ids))
    return sorted(position for _, position in keys[:most])


def _detectors(job: Job) -> dict[str, Any]:
    """Which detectors judged the model's own test data, with their options and the thresholds that they used."""
    found = read_json(job.source("drift", "drift.json"))
    chosen = read_json(job.source("drift", "lineage.json"))["params"].get("drift", {})
    scores = {
        one["column"]: {k: one.get(k) for k in ("detector", "p_value", "score", "threshold", "direction", "drifted")}
        for one in found.get("columns", ())
    }
    return {
        "columns": {"detector": chosen.get("columns"), "baseline": scores},
        "embeddings": {"detector": chosen.get("embeddings"), "baseline": found.get("embeddings")},
        "current": found.get("current"),
    }
