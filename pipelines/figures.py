"""The figures of a bundle for programs, evaluation.json and metrics.json, checked before anybody takes them apart.

Checksums say that a file is the one that was written, not that it says something: a bundle may come from anywhere.
Only what readers look into is checked; what else stands there is let be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from components.contracts import InputError, read_json

EVALUATION, METRICS = "evaluation.json", "metrics.json"
MAX_BYTES = 64_000_000


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Interval(_Read):
    value: float | None = None
    low: float | None = None
    high: float | None = None


class _Quality(_Read):
    """A bundle of an older project may have it by measure alone: then neither was told."""

    shipped: dict[str, _Interval] = {}
    float32: dict[str, _Interval] = {}


class _Group(_Read):
    grouping: str
    group: str | int | float | bool | None
    num: int
    small: bool
    measures: dict[str, _Interval | None]


class _Groups(_Read):
    groups: list[_Group] | None = None


class _Verdict(_Read):
    stage: str
    passed: bool
    rules: list[dict[str, Any]] = []


class _Data(_Read):
    reasons: dict[str, Any] | None = None
    findings: list[dict[str, Any]] | None = None


class _Evaluation(_Read):
    data: _Data | None = None
    variant: str | None = None
    quality: _Quality | None = None
    groups: _Groups | None = None
    verdicts: list[_Verdict] | None = None


_KINDS: dict[str, TypeAdapter[Any]] = {
    EVALUATION: TypeAdapter(_Evaluation),
    METRICS: TypeAdapter(dict[str, dict[str, float]], config=ConfigDict(strict=True)),
}


def read(folder: Path, name: str) -> dict[str, Any]:
    """The content of EVALUATION or METRICS as it stands there; {} where the bundle has none.

    quality is {shipped | float32: {measure: {value, low, high}}}; metrics are {stage: {metric: number}}, with those of
    model.onnx itself under `shipped`.

    Raises:
        InputError: it cannot be read, or is not as it must be; with its name and where.
    """
    if not (folder / name).is_file():
        return {}
    value = content(folder, name)
    try:
        _KINDS[name].validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        raise InputError(f"{folder / name} is not as a bundle has it: {where}: {first['msg']}") from None
    return dict(value)


def content(folder: Path, name: str) -> Any:
    """The value of any JSON file of a bundle.

    Raises:
        InputError: it cannot be read.
    """
    place = folder / name
    try:
        if place.stat().st_size > MAX_BYTES:
            raise InputError(f"{place} is larger than {MAX_BYTES // 1_000_000} MB: no bundle's {name} is")
        return read_json(place)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place} cannot be read: {error or type(error).__name__}") from None
