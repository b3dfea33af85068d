"""Put together the bundle that leaves the house, and check it as a stranger would.

Reads: what every stage wrote (see NEEDS and dvc.yaml): the model and its variants, the records, metrics, verdicts and
lineages, the report, a few test samples; requirements.lock; from git, through the job, the newest commit that changed a
file that the model rests on.
Writes: bundle/ with model.onnx, variants/ and tokenizer.onnx where export made them, ladder.json, labels.json,
preprocessing.json and the files that it rests on (a tokenizer), signature.json, example/, metrics.json,
evaluation.json, profile/, card.md, annex_iv.md, report.html, serving/, predict.py, preprocessing.py and verify.py
(verbatim: components/preprocessing/<task>.py, components/handoff/verify_bundle.py), requirements.txt, bom.cdx.json,
provenance.json, SHA256SUMS. It is not signed: `python -m pipelines release` does that.
Decides: the files above, and the section's params.
Fails: a verdict did not pass (Refused); the folders come from different runs or a sample changed
(InputError); the finished bundle does not give its own examples again, is not as its schemas say, or holds a path of
this machine (BundleError).
Does not check: paths in samples and vocabularies, which are others' own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from components import lineage, params, plugins
from components.contracts import RunRecord, put_files, read_json, read_record, read_table, with_files
from components.handoff.stated import Stated
from components.job import Job

if TYPE_CHECKING:
    from components.handoff.bundle import Bundle
    from components.handoff.provenance import Provenance

NEEDS = (
    "ingest", "validate", "augment", "select", "finetune", "evaluate",
    "bias", "drift", "gate", "report", "export",
)  # fmt: skip
RUN, LOCK = "main", "requirements.lock"
PROFILE_SAMPLES = 1000
"""Rows a table of profile/ where the owner leaves the number to us, and samples may leave the house."""


class Params(params.Params):
    """Section `handoff`."""

    licence: str
    """Licence of the resulting model, as its owner states it (SPDX name where there is one); may be empty."""
    contact: str
    """Whom to ask; may be empty."""
    examples: int = Field(ge=0, le=3)
    """Test samples that go along, so that whoever deploys can check the model's answers; 0 where they are private."""
    profile_samples: Literal["auto"] | Annotated[int, Field(strict=True, ge=0, le=100_000)]
    """At most so many rows a table of profile/: of single samples the measured properties, the labels and the
    embeddings, without ids and content. What a sample was can in part be told from its embedding. 0: no profile. auto:
    1000, but 0 where `examples` is 0, so that rows of private samples leave the house only by a stated number."""
    stated: Stated
    """What only the owner of the model can say."""

    @property
    def profile_rows(self) -> int:
        """`profile_samples` as a number."""
        if self.profile_samples == "auto":
            return PROFILE_SAMPLES if self.examples else 0
        return self.profile_samples


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_files, bundle_mb."""
    export = read_json(job.source("export", "export.json"))
    runs = job.source("finetune", "runs") / RUN
    recorded = read_record(RunRecord, runs / "run.json")
    lineages = {stage: read_json(job.source(stage, "lineage.json")) for stage in NEEDS}

    from components.handoff.bundle import Bundle
    from components.handoff.private import private_paths

    private = private_paths(job.root, params.model_dump(), lineages, vars(recorded))
    origin = _origin(params, job, recorded, lineages)
    record = replace(recorded, preprocessing=with_files(runs / "files", recorded.preprocessing))
    bundle = Bundle(job.out("bundle/labels.json").parent, private)
    needed = _fill(bundle, job, record, export["inside"])
    told = _tell(bundle, params, job, record, export, origin)
    num_files = _close(bundle, params, job, record, export, origin, told, needed)
    size = sum(p.stat().st_size for p in bundle.folder.rglob("*") if p.is_file())
    return {"num_files": float(num_files), "bundle_mb": round(size / 1e6, 3)}


def _tell(
    bundle: Bundle, params: Params, job: Job, record: RunRecord, export: dict[str, Any], origin: Provenance
) -> dict[str, Any]:
    """What is there to be read; returns what it says."""
    from components.handoff import annex, card, facts, profile, serving

    told = facts.collect(job, record, export) | {
        **params.model_dump(),
        "provenance": {**vars(origin), "model_sha256": lineage.hash_file(bundle.folder / "model.onnx")},
        "profile": profile.write(bundle, job, record, params.profile_rows, export["variant"]),
        "serving": serving.write(bundle, job.run.name, export),
        "lock": (job.root / LOCK).read_text("utf-8"),
    }
    measured = {stage: read_json(job.source(stage, "metrics.json")) for stage in NEEDS}
    bundle.record("metrics.json", {**measured, "shipped": facts.metrics(told["shipped"]["measures"])})
    bundle.record("evaluation.json", facts.evaluation(told))
    bundle.text("card.md", card.render(told))
    bundle.text("annex_iv.md", annex.render(told))
    if params.examples:  # the report shows samples too
        bundle.text("report.html", job.source("report", "index.html").read_text("utf-8"))
    return told


def _close(
    bundle: Bundle, params: Params, job: Job, record: RunRecord, export: dict[str, Any], origin: Provenance,
    told: dict[str, Any], needed: Iterable[str],
) -> int:  # fmt: skip
    """The examples, the BOM, the provenance and the checksums of all that; read again. Returns how many files."""
    from components.handoff import bom, examples, provenance, verify

    with tempfile.TemporaryDirectory() as aside:
        golden = bundle if params.examples else replace(bundle, folder=Path(aside))  # checked, if not shipped
        chosen = {**export, "examples": export["examples"][: params.examples or None]}
        accepted = read_table(job.source("validate", "accepted.parquet"))
        verbatim = {*needed, *examples.write(golden, record, chosen, accepted, job.root)}
        bundle.record("signature.json", examples.described(bundle, golden, record, chosen))
        bundle.record(bom.FILE, _bill(told, origin, bundle))
        bundle.record("provenance.json", provenance.statement(replace(origin, subjects=bundle.hashes())))
        num_files = verify.write_checksums(bundle.folder) + 1
        job.say(f"reading the {num_files} files of the bundle again")
        bundle.settle()
        verify.verify(bundle.folder, bundle.private, job.run.threads, golden.folder, verbatim)
    return num_files


def _fill(bundle: Bundle, job: Job, record: RunRecord, inside: dict[str, Any]) -> tuple[str, ...]:
    """The model, and what predict.py needs to call it; returns the files that the preprocessing rests on."""
    sight = plugins.load("preprocessing", record.task)
    bundle.record("labels.json", record.labels)
    how = sight.shipped(record.preprocessing, record.inputs)
    bundle.record("preprocessing.json", {**put_files(bundle.folder, how), "inside": inside})
    bundle.copy(job.source("export", "model.onnx"), "model.onnx")
    bundle.copy(Path(__file__).with_name("predict.py"), "predict.py")
    bundle.copy(Path(__file__).with_name("verify_bundle.py"), "verify.py")
    bundle.copy(Path(str(sight.__file__)), "preprocessing.py")
    packages = ("numpy", *sight.REQUIRES, "onnxruntime")
    bundle.text("requirements.txt", "".join(f"{name}=={metadata.version(name)}\n" for name in packages))
    for folder, top in (("variants", "ladder.json"), ("companion", "")):
        _copy_made(bundle, job, folder, top)
    return tuple(sight.FILES)


def _copy_made(bundle: Bundle, job: Job, folder: str, top: str) -> None:
    """What export made beside the model: further variants with the ladder, a companion of the model. What is said
    of the companion (in a file of its own, so that the folder is never empty) stands in preprocessing.json."""
    for path in sorted(p for p in job.source("export", folder).iterdir() if p.name != "companion.json"):
        place = path.name if path.name == top or folder == "companion" else f"{folder}/{path.name}"
        bundle.copy(path, place)


def _bill(told: dict[str, Any], origin: Provenance, bundle: Bundle) -> dict[str, Any]:
    from components.handoff import bom
    from components.handoff.private import without

    requirements = (bundle.folder / "requirements.txt").read_text("utf-8").split()
    whole = bom.build(told, origin, told["provenance"]["model_sha256"], told["lock"], requirements)
    shown = without(bundle.private, json.dumps(whole, ensure_ascii=False))
    return bom.numbered(json.loads(shown))  # by what is shown, so that another machine's paths change nothing


def _origin(params: Params, job: Job, record: RunRecord, lineages: Any) -> Provenance:
    from components.handoff import provenance

    weights = lineage.hash_file(job.source("finetune", "runs") / RUN / "weights.safetensors")
    own = lineage.hashes(job.root, (d for d in job.declared or () if d.startswith("components/")))
    code = {*own, *(path for one in lineages.values() for path in one["code"])}
    where = job.commit_of(provenance.rests_on(code))
    lock = lineage.hashes(job.root, [LOCK]).get(LOCK)
    told = provenance.gather(job.run.name, lineages, record.base_weights, weights, where, lock)
    values = {**told.params, job.stage: params.model_dump(mode="json")}  # this stage has no lineage yet
    return replace(told, code=dict(sorted({**own, **told.code}.items())), params=values)
