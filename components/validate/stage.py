"""Judge the data, and cut what may be used into train, validation and test.

Reads: ingest/manifest.parquet, ingest/summary.json (its count of usable samples).
Writes: accepted.parquet (the manifest's usable rows with their `split`, by id), set_aside.parquet (id, label, reason),
findings.json, verdict.json (one rule for the expectations, one for the split, one a check). For people, not hashed:
reports/validate/data_docs/ (Great Expectations' pages, made readable without a network).
Decides: the manifest, run.seed, the shares, the chosen checks. A column `attribute.split` in the source is the user's
own split and is taken instead of the shares (see split.py).
Fails: shares that do not sum to 1, an attribute that is not there, a name in `attribute.split` that is no split
(InputError). What is wrong with the data itself does not fail the stage: the verdict refuses, and whoever reads
accepted.parquet stops.
Does not check: whether a label is right. Nearly equal images are not looked for; texts are, by near_duplicates.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from components import params, plugins
from components.contracts import (
    ATTRIBUTE,
    SPLITS,
    Finding,
    InputError,
    Rule,
    Verdict,
    read_json,
    read_table,
    write_json,
    write_table,
)
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    import pandas as pd

NEEDS = ("ingest",)
MAX_LINES = 7
"""Findings that are told one by one; all of them stand in findings.json."""


class Split(params.Params):
    """Shares of the samples, which sum to 1."""

    train: float = Field(gt=0, lt=1)
    """Share that the network learns from."""
    validation: float = Field(gt=0, lt=1)
    """Share that training watches, to stop early and to calibrate."""
    test: float = Field(gt=0, lt=1)
    """Share that is looked at once, by `evaluate`."""
    group: str | None = None
    """An attribute of the source whose samples stay together (a patient, a camera, an author)."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, but is {total:g}")
        return self


class Params(params.Params):
    """Section `validate`."""

    split: Split
    """How samples are divided; copies of a sample stay together, labels are stratified."""
    min_labelled: float = Field(ge=0, le=1)
    """Smallest share of samples that must have a label; those without are set aside."""
    checks: tuple[Annotated[Choice, Family("validate.checks")], ...]
    """What is looked for across rows."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_rows = num_accepted + num_set_aside, num_train, num_validation, num_test, num_labels, num_copies,
    num_errors, num_warnings, num_expectations."""
    from components.validate import expectations, split

    manifest = read_table(job.source("ingest", "manifest.parquet"))
    _know_group(params.split.group, list(manifest.columns))
    counted = int(read_json(job.source("ingest", "summary.json"))["num_used"])
    docs = job.report("data_docs/index.html").parent
    schema = expectations.judge(manifest, counted, params.min_labelled, docs)

    table = manifest.reindex(columns=list(dict.fromkeys([*manifest.columns, "id", "sha256", "label", "note"])))
    decision = plugins.load("decisions", job.run.decision)
    table["label"] = [decision.canonical(v) if isinstance(v, str) and v.strip() else v for v in table["label"]]
    table["labels"] = [decision.split(v) if isinstance(v, str) else () for v in table["label"]]
    table["reason"] = _reasons(table)
    used = table["reason"] == ""
    table["split"] = None
    table.loc[used, "split"] = split.assign(table[used], job.run.seed, params.split)
    found = [("expectations", schema.findings), ("split", split.findings(table[used]))]
    seen = table.drop(columns="reason").sort_values("id", kind="stable").reset_index(drop=True)
    found += [(c.name, list(c.load().check(seen, c.params))) for c in params.checks]
    return _write(table, found, schema.num_expectations, job)


def _know_group(group: str | None, columns: list[str]) -> None:
    known = [c.removeprefix(ATTRIBUTE) for c in columns if c.startswith(ATTRIBUTE)]
    if group is not None and group not in known:
        raise InputError(
            f"validate.split.group: the source gives no attribute {group!r}. Known: {', '.join(known) or 'none'}"
        )


def _reasons(table: pd.DataFrame) -> pd.Series:
    """Why a row cannot be used, "" if it can. All but `no_label` also fail an expectation."""
    import pandas as pd

    reason = pd.Series("", index=table.index)
    blank = {c: table[c].isna() | (table[c].astype(str).str.strip() == "") for c in ("label", "sha256", "id")}
    reason[blank["label"]] = "no_label"
    reason[blank["sha256"]] = "no_sha256"
    reason[table["id"].duplicated()] = "id_twice"
    reason[blank["id"]] = "no_id"
    return reason


def _write(
    table: pd.DataFrame, found: list[tuple[str, list[Finding]]], num_expectations: int, job: Job
) -> dict[str, float]:
    used = table["reason"] == ""
    accepted = table[used].drop(columns=["reason", "labels"]).sort_values("id", kind="stable")
    num_labels = table.loc[used, "labels"].explode().nunique()
    aside = table.loc[~used, ["id", "label", "reason"]].sort_values(["reason", "id"], kind="stable")
    assert len(accepted) + len(aside) == len(table), "counts must reconcile"
    findings = [finding for _, of_check in found for finding in of_check]
    verdict = Verdict("validate", all(f.severity != "error" for f in findings), tuple(_rule(*f) for f in found))
    write_table(job.out("accepted.parquet"), accepted)
    write_table(job.out("set_aside.parquet"), aside)
    write_json(job.out("findings.json"), findings)
    write_json(job.out("verdict.json"), verdict)
    splits, severities = Counter(accepted["split"]), Counter(f.severity for f in findings)
    numbers = {
        "num_rows": len(table),
        "num_accepted": len(accepted),
        "num_set_aside": len(aside),
        **{f"num_{name}": splits[name] for name in SPLITS},
        "num_labels": int(num_labels),
        "num_copies": len(accepted) - accepted["sha256"].nunique(),
        "num_errors": severities["error"],
        "num_warnings": severities["warning"],
        "num_expectations": num_expectations,
    }
    _tell(numbers, Counter(aside["reason"]), findings, verdict.passed, job)
    return {name: float(value) for name, value in numbers.items()}


def _rule(name: str, findings: list[Finding]) -> Rule:
    errors = [f.message for f in findings if f.severity == "error"]
    why = "; ".join(errors) or f"no errors, {len(findings)} warnings"
    return Rule(name, not errors, float(len(errors)), 0.0, float(-len(errors)), why)


def _tell(numbers: dict[str, int], reasons: Counter[str], findings: list[Finding], passed: bool, job: Job) -> None:
    cut = ", ".join(f"{numbers[f'num_{name}']} {name}" for name in SPLITS)
    job.say(f"{numbers['num_accepted']} of {numbers['num_rows']} samples, {numbers['num_labels']} labels: {cut}")
    if reasons:
        told = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
        job.say(f"set aside: {told} (artifacts/validate/set_aside.parquet)")
    ordered = sorted(findings, key=lambda f: f.severity)  # "error" before "warning"
    for finding in ordered[:MAX_LINES]:
        job.say(f"{finding.severity}, {finding.check}: {finding.message}")
    if len(ordered) > MAX_LINES:
        job.say(f"and {len(ordered) - MAX_LINES} more findings (artifacts/validate/findings.json)")
    job.say(f"{'passed' if passed else 'refused'}; Data Docs: reports/validate/data_docs/index.html")
