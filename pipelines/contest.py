"""Does a release lose accuracy to the live one? On the same samples where that is honest, else by what both recorded.

After a retraining for drift: on the new one's test split, without what the live one has learnt from, as retrain.py
measured it; samples of both test splits would be those of before the drift.

Else on the same samples: those that were in the test split of both, with the same bytes and label, so that neither was
trained on them; what each answered is in its run's tables, which the signed provenance names by hash, and which lie in
the project or in DVC's cache. Only where both ship the float32 network, as these tables are of that. Else the two
recorded accuracies with their intervals, which may be of other samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components.contracts import InputError, Refused, read_json
from pipelines.diff import Side, difference

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipelines.versions import Version

MIN_SHARED = 100
"""Fewer samples of both test splits are too few to compare by."""
LEVEL = 0.95
RUN = "main"
ACCEPTED, PREDICTIONS = "artifacts/validate/accepted.parquet", "artifacts/evaluate/predictions.parquet"
MEASURED = "reports/monitor/against_live.json"
METRIC = "accuracy"
ROUNDING = 1e-9


def held(root: Path, new: Path, old: Path, max_loss: float) -> str:
    """What was compared and found.

    The difference measured decides, and its interval is told, which says how sure that is: to ask for its lower end
    would, with test splits of hundreds of samples, refuse the very same model; to ask for its upper end would let
    points go by unseen.

    Raises:
        Refused: it loses more, or what it would be compared by was not measured.
    """
    sides = Side(old, "the live one"), Side(new, "the new one")
    try:
        found, how = _measured(root, *sides) or _paired(root, *sides) or _recorded(*sides)
    except InputError as error:
        raise Refused(f"{METRIC} cannot be compared with that of the live one: {error}") from None
    value, low, high = found
    told = f"{METRIC} {value:+.4f} [{low:+.4f}, {high:+.4f}], {how}"
    if not value >= -max_loss - ROUNDING:
        sure = "" if high < -max_loss else "; by the interval it may be less"
        raise Refused(
            f"it loses more than promote.max_loss, {max_loss:g}, to the live one: {told}{sure}. "
            "Nothing was changed. Another model, or another promote.max_loss"
        )
    return told


def _measured(root: Path, old: Side, new: Side) -> tuple[tuple[float, float, float], str] | None:
    """What retrain.py measured of these two, as they ship, on the new one's test split; None: nothing."""
    try:
        told = read_json(root / MEASURED)
        gain, num = told["gain"], int(told["num_compared"])
        same = told["models"] == {"candidate": new.files.get("model.onnx"), "live": old.files.get("model.onnx")}
        value, low, high = (float(gain[part]) for part in ("value", "low", "high"))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not same or num < MIN_SHARED or not -1 <= low <= value <= high <= 1:
        return None
    return (value, low, high), f"paired on {num} samples of the new test split; {told.get('note', '')}"


def _recorded(old: Side, new: Side) -> tuple[tuple[float, float, float], str]:
    figures = [((side.evaluation.get("quality") or {}).get("shipped") or {}).get(METRIC) or {} for side in (old, new)]
    found = difference(METRIC, *figures)
    if found["low"] is None:
        raise InputError(f"it is not recorded with its interval on both sides ({found['verdict']})")
    same = old.origin.data.get("accepted_sha256") == new.origin.data.get("accepted_sha256")
    where = "the same test split" if same else "two test splits that differ"
    return (found["difference"], found["low"], found["high"]), f"by the two recorded intervals, of {where}"


def _paired(root: Path, old: Side, new: Side) -> tuple[tuple[float, float, float], str] | None:
    """None: it would not be honest, or the tables are not to be had."""
    if any(side.evaluation.get("variant") != "fp32" for side in (old, new)):
        return None
    tables = []
    for side in (old, new):
        found = _tables(root, side)
        if found is None:
            return None
        tables.append(found)
    both = tables[0].merge(tables[1], on=["id", "sha256", "label"], suffixes=("_old", "_new"), validate="1:1")
    if len(both) < MIN_SHARED:
        return None
    from components.paired import paired_gain

    gain = paired_gain(_right(both, "new"), _right(both, "old"), LEVEL)
    return (gain.value, gain.low, gain.high), f"paired on the {len(both)} samples that were in both test splits"


def _right(both: pd.DataFrame, which: str) -> np.ndarray:
    found: np.ndarray = both[f"right_{which}"].to_numpy(dtype=bool)
    return found


def _tables(root: Path, side: Side) -> pd.DataFrame | None:
    """id, sha256, label and right (whether the main run's answer was) of its test split."""
    from components.contracts import read_table
    from components.lineage import hash_file

    recorded = {path: h for one in side.origin.stages.values() for path, h in one["outputs"].items()}
    if not {ACCEPTED, PREDICTIONS} <= recorded.keys():
        return None
    places = {}
    for path in (ACCEPTED, PREDICTIONS):
        for place in _places(root, side, path):
            if hash_file(place) == recorded[path]:
                places[path] = place
                break
        else:
            return None
    try:
        accepted, said = (read_table(places[path]) for path in (ACCEPTED, PREDICTIONS))
        accepted = accepted.loc[accepted["split"] == "test", ["id", "sha256"]]
        said = said[(said["run"] == RUN) & (said["split"] == "test")]
        said = said.assign(right=said["label"] == said["predicted"])[["id", "label", "right"]]
    except (LookupError, ValueError):  # of an older or newer form
        return None
    whole = ((side.evaluation.get("quality") or {}).get("float32") or {}).get(METRIC) or {}
    if not len(said) or abs(float(said["right"].mean()) - (whole.get("value") or 0)) > ROUNDING:
        return None  # what is right is counted in another way there
    return accepted.merge(said, on="id", validate="1:1")


def _places(root: Path, side: Side, path: str) -> Iterator[Path]:
    """Where the table may be: in the project, and in DVC's cache by what commits recorded."""
    if (root / path).is_file():
        yield root / path
    from pipelines import versions

    model = side.files.get("model.onnx")
    known: list[Version] = [one for one in versions.gather(root).found if one.model_sha256 == model]
    for one in known:
        place = one.where(path)
        if place is not None:
            yield place
