"""The schema of the manifest as a Great Expectations suite: what every row must be, whatever the data set.

Runs in memory: no project folder, no analytics, no network. Each expectation carries in its notes what a reader is
told if it does not hold, so the pages and the findings say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import INPUT, PROPERTY, Finding
from components.validate import data_docs

if TYPE_CHECKING:
    import pandas as pd

RANGES = {
    "width": (1.0, None), "height": (1.0, None), "num_bytes": (1.0, None), "aspect_ratio": (1e-6, 1e6),
    "brightness": (0.0, 1.0), "contrast": (0.0, 0.5), "saturation": (0.0, 1.0), "sharpness": (0.0, 2.0),
}  # fmt: skip
"""What a property can be at all: the deviation of values in 0..1 is at most 0.5, their second difference at most 2."""
FINITE = (-1.7e308, 1.7e308)
MAX_SAMPLES = 20


@dataclass(frozen=True)
class Outcome:
    """What the suite found."""

    num_expectations: int
    findings: list[Finding]


def judge(manifest: pd.DataFrame, counted: int, min_labelled: float, docs: Path) -> Outcome:
    """Run the suite over the manifest and write its pages into the folder `docs`.

    Args:
        counted: usable samples by ingest's own count.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        data_docs_sites=data_docs.site(docs),
        progress_bars=ProgressBarsConfig(globally=False),
    )
    context = gx.get_context(project_config=config, mode="ephemeral")
    asset = context.data_sources.add_pandas("ingest").add_dataframe_asset("manifest")
    suite = context.suites.add(gx.ExpectationSuite(name="manifest"))
    for expectation in expected(list(manifest.columns), counted, min_labelled):
        suite.add_expectation(expectation)
    definition = gx.ValidationDefinition(
        name="manifest", data=asset.add_batch_definition_whole_dataframe("all rows"), suite=suite
    )
    result = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": manifest},
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": MAX_SAMPLES,
            **({"unexpected_index_column_names": ["id"]} if "id" in manifest else {}),
        },
    )
    failed = [_finding(r.to_json_dict()) for r in result.results if not r.success]
    num = len(result.results)
    data_docs.build(context, docs, f"{num - len(failed)} of {num} expectations hold.")
    return Outcome(num, sorted(failed, key=lambda f: f.message))


def expected(columns: list[str], counted: int, min_labelled: float) -> list[Any]:
    """The suite for a manifest with these columns; expectations about a column that is missing are left out."""
    import great_expectations.expectations as gxe

    suite: list[Any] = [
        gxe.ExpectTableRowCountToEqual(
            value=counted,
            notes=f"the manifest's rows are not the {counted} samples that ingest counted; run `ingest` again",
        )
    ]
    for name in ("id", "sha256", "label", "note"):
        suite.append(
            gxe.ExpectColumnToExist(column=name, notes=f"the manifest has no column `{name}`; run `ingest` again")
        )
    filled = [c for c in columns if c in ("id", "sha256") or c.startswith((INPUT, PROPERTY))]
    suite += [gxe.ExpectColumnValuesToNotBeNull(column=c, notes=f"`{c}` must be in every row") for c in filled]
    if "id" in columns:
        suite.append(gxe.ExpectColumnValuesToBeUnique(column="id", notes="an `id` stands for one sample only"))
    if "sha256" in columns:
        suite.append(
            gxe.ExpectColumnValuesToMatchRegex(
                column="sha256", regex="^[0-9a-f]{64}$", notes="`sha256` must be 64 hexadecimal digits"
            )
        )
    if "label" in columns:
        suite.append(
            gxe.ExpectColumnValuesToNotBeNull(
                column="label",
                mostly=min_labelled,
                notes=f"at least {min_labelled:.0%} of the samples must have a label (validate.min_labelled)",
            )
        )
    for column in columns:
        if column.startswith(PROPERTY):
            low, high = RANGES.get(column.removeprefix(PROPERTY), FINITE)
            told = f"`{column}` must be {f'at least {low:g}' if high is None else f'from {low:g} to {high:g}'}"
            bound = FINITE[1] if high is None else high  # without an upper bound, infinity would pass
            suite.append(gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=bound, notes=told))
    return suite


def _finding(result: dict[str, Any]) -> Finding:
    told = result["expectation_config"]
    notes, detail = str(told.get("notes") or told["type"]), result.get("result") or {}
    trouble = result.get("exception_info") or {}
    if trouble.get("raised_exception"):
        return Finding("expectations", "error", f"{notes}: could not be judged: {trouble.get('exception_message')}")
    wrong = int(detail.get("unexpected_count") or 0)
    ids = sorted({str(row["id"]) for row in detail.get("partial_unexpected_index_list") or ()})
    if wrong:
        notes += f": {wrong} of {detail['element_count']} samples break this"
    elif "observed_value" in detail:
        notes += f": it has {detail['observed_value']}"
    return Finding("expectations", "error", notes, wrong, tuple(ids[:MAX_SAMPLES]))
