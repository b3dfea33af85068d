"""Put together the bundle that leaves the house, and check it as a stranger would.

Reads: what every stage wrote (see NEEDS and dvc.yaml): the model, the records, metrics and lineages, the
report, a few test images. Code is named by the hash of every file: a commit would differ where no code does.
Writes: bundle/ with model.onnx, labels.json, preprocessing.json, signature.json, example/, metrics.json,
card.md, provenance.json, report.html, predict.py and image_preprocessing.py (verbatim), requirements.txt,
SHA256SUMS.
Decides: the files above, and the licence and contact in params.
Fails: a verdict did not pass (Refused); the folders come from different runs or a sample changed
(InputError); the finished bundle does not give its own examples again, or holds a path of this machine
(BundleError).
Does not check: which commit holds that code; `git log` finds it by the hashes in provenance.json.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from components import image_preprocessing, lineage, params, samples
from components.contracts import RunRecord, read_json, read_record, read_table, write_atomic, write_json
from components.job import Job

NEEDS = (
    "ingest", "validate", "augment", "select", "finetune", "evaluate",
    "bias", "drift", "gate", "report", "export",
)  # fmt: skip
RUN = "main"
SHIPPED = ("numpy", "pillow", "onnxruntime")
"""What predict.py needs, at the versions that the bundle was checked with."""
TOLERANCE = 1e-4
"""Allowed difference of a probability on another processor or with another build of the runtime."""
HERE = Path(__file__).parent


class Params(params.Params):
    """Section `handoff`."""

    licence: str
    """Licence of the resulting model, as its owner states it (SPDX name where there is one); may be empty."""
    contact: str
    """Whom to ask; may be empty."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_files, bundle_mb."""
    export = read_json(job.source("export", "export.json"))
    record = read_record(RunRecord, job.source("finetune", "runs") / RUN / "run.json")
    lineages = {stage: read_json(job.source(stage, "lineage.json")) for stage in NEEDS}

    from components.handoff import card, facts, provenance, verify

    private = provenance.private_paths(job.root, params.model_dump(), lineages, vars(record))
    merged = _provenance(job, record, provenance.merge(lineages))

    def write(name: str, text: str) -> None:
        write_atomic(job.out(f"bundle/{name}"), provenance.without(private, text).encode())

    def write_record(name: str, value: Any) -> None:
        write_json(place := job.out(f"bundle/{name}"), value)
        write(name, place.read_text("utf-8"))

    metrics = {stage: read_json(job.source(stage, "metrics.json")) for stage in NEEDS}
    write_record("metrics.json", metrics)
    write_record("labels.json", record.labels)
    write_record("preprocessing.json", record.preprocessing)
    _copy(job.source("export", "model.onnx"), job.out("bundle/model.onnx"))
    _copy(HERE / "predict.py", job.out("bundle/predict.py"))
    _copy(Path(image_preprocessing.__file__), job.out("bundle/image_preprocessing.py"))
    for name, value in _examples(job, record, export).items():
        write_record(name, value)
    write("requirements.txt", "".join(f"{name}=={metadata.version(name)}\n" for name in SHIPPED))
    told = {"licence": params.licence, "contact": params.contact, "provenance": merged}
    write("card.md", card.render(facts.collect(job, record, export) | told))
    write("report.html", job.source("report", "index.html").read_text("utf-8"))
    write_record("provenance.json", merged)

    folder = job.out("bundle/SHA256SUMS").parent
    num_files = verify.write_checksums(folder) + 1
    job.say(f"reading the {num_files} files of the bundle again")
    verify.verify(folder, private, job.run.threads)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return {"num_files": float(num_files), "bundle_mb": round(size / 1e6, 3)}


def _copy(source: Path, place: Path) -> None:
    write_atomic(place, source.read_bytes())


def _examples(job: Job, record: RunRecord, export: dict[str, Any]) -> dict[str, Any]:
    """Copies test images to example/; returns what torch gave for them, and the signature with the first."""
    from components.handoff import signature

    accepted = read_table(job.source("validate", "accepted.parquet")).set_index("id")
    told: list[dict[str, Any]] = []
    contents: list[bytes] = []
    for number, example in enumerate(export["examples"], start=1):
        row = accepted.loc[example["id"]]
        suffix = PurePosixPath(row["input.path"]).suffix.lower()
        content = samples.read_checked(job.root, row["input.path"], row["sha256"])
        probabilities = dict(zip(record.labels, example["probabilities"]))
        told.append({**example, "file": f"{number}{suffix}", "probabilities": probabilities})
        contents.append(content)
        write_atomic(job.out(f"bundle/example/{number}{suffix}"), content)
    note = "probabilities by the training code (torch on the CPU); `label` is the one in the data"
    return {
        "example/expected.json": {"examples": told, "tolerance": TOLERANCE, "note": note},
        "signature.json": signature.describe(export, record.preprocessing, record.labels, told[0], contents[0]),
    }


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
