"""Put together the bundle that leaves the house, and check it as a stranger would.

Reads: what every stage wrote (see NEEDS and dvc.yaml): the model, the records, metrics and lineages, the
report, a few test samples. Code is named by the hash of every file: a commit would differ where no code does.
Writes: bundle/ with model.onnx, labels.json, preprocessing.json and the files that it rests on (a tokenizer),
signature.json, example/, metrics.json, card.md, provenance.json, report.html, predict.py and preprocessing.py
(verbatim: components/preprocessing/<task>.py), requirements.txt, SHA256SUMS.
Decides: the files above, and the licence, the contact and the number of examples in params.
Fails: a verdict did not pass (Refused); the folders come from different runs or a sample changed
(InputError); the finished bundle does not give its own examples again, or holds a path of this machine
(BundleError).
Does not check: which commit holds that code; `git log` finds it by the hashes in provenance.json. Paths in
samples and vocabularies, which are others' own.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components import lineage, params, plugins
from components.contracts import (
    RunRecord,
    put_files,
    read_json,
    read_record,
    read_table,
    with_files,
)  # fmt: skip
from components.job import Job

if TYPE_CHECKING:
    from components.handoff.bundle import Bundle

NEEDS = (
    "ingest", "validate", "augment", "select", "finetune", "evaluate",
    "bias", "drift", "gate", "report", "export",
)  # fmt: skip
RUN = "main"


class Params(params.Params):
    """Section `handoff`."""

    licence: str
    """Licence of the resulting model, as its owner states it (SPDX name where there is one); may be empty."""
    contact: str
    """Whom to ask; may be empty."""
    examples: int = Field(ge=0, le=3)
    """Test samples that go along, so that whoever deploys can check the model's answers; 0 where they are private."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_files, bundle_mb."""
    export = read_json(job.source("export", "export.json"))
    runs = job.source("finetune", "runs") / RUN
    recorded = read_record(RunRecord, runs / "run.json")
    lineages = {stage: read_json(job.source(stage, "lineage.json")) for stage in NEEDS}

    from components.handoff import card, examples, facts, provenance, verify
    from components.handoff.bundle import Bundle

    private = provenance.private_paths(job.root, params.model_dump(), lineages, vars(recorded))
    merged = _provenance(job, recorded, provenance.merge(lineages))
    record = replace(recorded, preprocessing=with_files(runs / "files", recorded.preprocessing))
    bundle = Bundle(job.out("bundle/labels.json").parent, private)
    bundle.record("metrics.json", {stage: read_json(job.source(stage, "metrics.json")) for stage in NEEDS})
    bundle.record("provenance.json", merged)
    needed = _fill(bundle, job, record)
    told = {**params.model_dump(), "provenance": merged}
    bundle.text("card.md", card.render(facts.collect(job, record, export) | told))
    if params.examples:  # the report shows samples too
        bundle.text("report.html", job.source("report", "index.html").read_text("utf-8"))

    with tempfile.TemporaryDirectory() as aside:
        golden = bundle if params.examples else replace(bundle, folder=Path(aside))  # checked, if not shipped
        export["examples"] = export["examples"][: params.examples or None]
        accepted = read_table(job.source("validate", "accepted.parquet"))
        verbatim = {*needed, *examples.write(golden, record, export, accepted, job.root)}
        bundle.record("signature.json", examples.described(bundle, golden, record, export))
        num_files = verify.write_checksums(bundle.folder) + 1
        job.say(f"reading the {num_files} files of the bundle again")
        verify.verify(bundle.folder, private, job.run.threads, golden.folder, verbatim)
    size = sum(p.stat().st_size for p in bundle.folder.rglob("*") if p.is_file())
    return {"num_files": float(num_files), "bundle_mb": round(size / 1e6, 3)}


def _fill(bundle: Bundle, job: Job, record: RunRecord) -> tuple[str, ...]:
    """The model, and what predict.py needs to call it; returns the files that the preprocessing rests on."""
    sight = plugins.load("preprocessing", record.task)
    bundle.record("labels.json", record.labels)
    how = sight.shipped(record.preprocessing, record.inputs)
    bundle.record("preprocessing.json", put_files(bundle.folder, how))
    bundle.copy(job.source("export", "model.onnx"), "model.onnx")
    bundle.copy(Path(__file__).with_name("predict.py"), "predict.py")
    bundle.copy(Path(str(sight.__file__)), "preprocessing.py")
    packages = ("numpy", *sight.REQUIRES, "onnxruntime")
    bundle.text("requirements.txt", "".join(f"{name}=={metadata.version(name)}\n" for name in packages))
    return tuple(sight.FILES)


def _provenance(job: Job, record: RunRecord, merged: dict[str, Any]) -> dict[str, Any]:
    ingest, validate = merged["stages"]["ingest"]["outputs"], merged["stages"]["validate"]["outputs"]
    weights = job.source("finetune", "runs") / RUN / "weights.safetensors"
    return {
        "name": job.run.name,
        "data": {
            "manifest_sha256": ingest["artifacts/ingest/manifest.parquet"],
            "accepted_sha256": validate["artifacts/validate/accepted.parquet"],
        },
        "base_weights": record.base_weights,
        "weights_sha256": lineage.hash_file(weights),
        "model_sha256": lineage.hash_file(job.source("export", "model.onnx")),
        **merged,
    }
