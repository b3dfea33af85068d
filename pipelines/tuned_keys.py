"""Which keys of section `finetune` are tuned, and between what: that follows from the chosen strategy's own Params.

Without being named: rates, weights of penalties and weight_decay, a tenth to ten times what they are now, on a log
scale; epochs, and numbers of blocks, stages and the like, half to twice; a decay from 0.3 to 1. What is
within bounds of its own, one of several words, or a truth value is tuned where it is named.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, cast, get_args, get_origin

from components.contracts import InputError
from components.params import Params
from components.plugins import Choice
from pipelines import side, stage

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from pydantic.fields import FieldInfo

SECTION, STRATEGY = "finetune", "finetune.strategy"
FACTOR = 10.0
"""A value on a log scale is looked for up to so many times below and above what it is."""
_ON_LOG_SCALE = ("rate", "weight", "weight_decay", "temperature")
_USUAL_ENDS = ("rate", "weight", "epochs")
_USUAL = ("num_blocks", "num_stages", "rank", "decay")
"""Of a strategy, what is tuned without being named: keys that end so, or are called so."""
_NEVER = ("strategy", "references", "processes", "precision", "label_shares", "name")
"""They do not make one model better than another here, or are the machine's business."""


@dataclass(frozen=True)
class Key:
    """One that is tuned: between two numbers, or among some values."""

    key: str
    """Of params.yaml, with dots."""
    now: Any
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def short(self) -> str:
        """Its last part."""
        return self.key.rpartition(".")[2]

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna has it."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    @property
    def least(self) -> Any:
        """The low end, or the first of the values."""
        return self.choices[0] if self.choices else int(self.low) if self.whole else self.low

    def rounded(self, value: Any) -> Any:
        """As it is written: two digits say enough of a rate."""
        if self.choices or self.whole:
            return value
        return min(max(float(f"{value:.2g}" if self.log else f"{value:.3g}"), self.low), self.high)

    def told(self) -> str:
        """Where it is looked for, in words."""
        if self.choices:
            return f"{self.key}: {', '.join(map(str, self.choices))} (now {self.now})"
        scale = ", log scale" if self.log else ""
        return f"{self.key}: {self.low:.4g} to {self.high:.4g}{scale} (now {self.now})"


def of(root: Path, section: Params, asked: Sequence[str] | None) -> list[Key]:
    """The keys to tune: those `asked` for (KEY, KEY=LOW..HIGH or KEY=[VALUE, ...]), else the usual ones.

    Raises:
        InputError: with every mistake; or there is nothing to tune.
    """
    fields = dict(_fields(section))
    strategy = cast(Choice, section.strategy)  # type: ignore[attr-defined]
    if strategy.name == "auto":
        raise InputError(
            f"{STRATEGY}: auto chooses among strategies, and has no keys to tune. Name the one that it chose "
            "(artifacts/finetune/runs/main/run.json, `strategy`), or another one"
        )
    problems: list[str] = []
    found: list[Key] = []
    for one in asked or ():
        try:
            found.append(_asked(one, fields))
        except InputError as error:
            problems.append(f"--keys {one}: {error}")
    if not asked:
        found = [own for key, (field, now) in fields.items() if (own := _by_itself(key, field, now))]
    names = [one.key for one in found]
    problems += [f"--keys: {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    problems = problems or [told for one in found for told in _refused(root, one)]
    if problems:
        raise InputError("\n".join(problems))
    if not found:
        raise InputError(f"{STRATEGY}: {strategy.name} has nothing that is tuned by itself. Known: {_known(fields)}")
    return found


def _fields(section: Params) -> Iterator[tuple[str, tuple[FieldInfo, Any]]]:
    """Key -> its field and its value now, the strategy's own first."""
    strategy = cast(Choice, section.strategy).params  # type: ignore[attr-defined]
    for prefix, params in ((STRATEGY, strategy), (SECTION, section)):
        for name, field in type(params).model_fields.items():
            value = getattr(params, name)
            if name not in _NEVER and isinstance(value, bool | int | float | str):
                yield f"{prefix}.{name}", (field, value)


def _by_itself(key: str, field: FieldInfo, now: Any) -> Key | None:
    """How a key is tuned that nobody named; None: it is not."""
    name = key.rpartition(".")[2]
    if not key.startswith(STRATEGY) and name != "weight_decay":
        return None
    if isinstance(now, bool | str):
        return None
    matters = name.endswith(_USUAL_ENDS) or name in (*_USUAL, "weight_decay")
    return _between(key, field, now) if matters else None


def _between(key: str, field: FieldInfo, now: Any) -> Key:
    """Around what it is now, within the field's bounds."""
    name, (least, most) = key.rpartition(".")[2], _bounds(field)
    if isinstance(now, int):
        low, high = max(least, now // 2, 1), min(most, max(2 * now, now + 1))
        return Key(key, now, low, high, whole=True)
    if name == "decay" and 0.95 <= now < 1:  # of an average, where the distance from 1 is what counts
        return Key(key, now, max(least, 1 - FACTOR * (1 - now)), min(most, 1 - (1 - now) / FACTOR))
    if name == "decay":
        return Key(key, now, max(least, min(0.3, now)), min(most, 1.0))
    if name.endswith(_ON_LOG_SCALE):
        low, high = (now / FACTOR, now * FACTOR) if now > 0 else (1e-4, 1e-1)
        return Key(key, now, max(least, low), min(most, high), log=True)
    return Key(key, now, max(least, 0.0), min(most, max(0.5, 2 * now)))


def _bounds(field: FieldInfo) -> tuple[float, float]:
    """The smallest and the largest value that a field may have."""
    least, most = -math.inf, math.inf
    for one in field.metadata:
        least = max([least, *(getattr(one, side) for side in ("ge", "gt") if getattr(one, side, None) is not None)])
        most = min([most, *(getattr(one, side) for side in ("le", "lt") if getattr(one, side, None) is not None)])
    return least, most


# --- those that were named ---


def _asked(one: str, fields: dict[str, tuple[FieldInfo, Any]]) -> Key:
    given, equals, limits = one.partition("=")
    key = next((k for k in (given, f"{STRATEGY}.{given}", f"{SECTION}.{given}") if k in fields), None)
    if key is None:
        raise InputError(f"no such key is tuned here. Known: {_known(fields)}. For others: python -m pipelines sweep")
    field, now = fields[key]
    if not equals:
        choices = _choices(field, now)
        return Key(key, now, choices=choices) if choices else _between(key, field, now)
    if limits.startswith("["):
        return _among(key, now, limits)
    return _limited(key, field, now, limits)


def _choices(field: FieldInfo, now: Any) -> tuple[Any, ...]:
    if isinstance(now, bool):
        return (False, True)
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    words = tuple(word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind))
    if isinstance(now, str) and len(words) < 2:
        raise InputError("it is a text; give KEY=[ONE, ANOTHER]")
    return words if isinstance(now, str) else ()


def _among(key: str, now: Any, limits: str) -> Key:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(limits)
    except (YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML: {str(error).splitlines()[0]}") from None
    plain = isinstance(values, list) and all(isinstance(v, bool | int | float | str) for v in values)
    if not plain or len(values) < 2 or any(v in values[:i] for i, v in enumerate(values)):
        raise InputError("give at least two values that differ, such as KEY=[1, 2]")
    if "auto" in values:
        raise InputError("what auto comes to is the machine's business, so it cannot win; give values alone")
    return Key(key, now, choices=tuple(values))


def _limited(key: str, field: FieldInfo, now: Any, limits: str) -> Key:
    if isinstance(now, bool | str):
        raise InputError("it is no number; give KEY=[ONE, ANOTHER]")
    low, dots, high = limits.partition("..")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = math.nan, math.nan
    whole = isinstance(now, int)
    if (
        not dots
        or not ends[0] < ends[1]
        or not all(map(math.isfinite, ends))
        or (whole and ends != tuple(map(int, ends)))
    ):
        raise InputError(
            f"give it as LOW..HIGH, {'whole ' if whole else ''}numbers, such as {_between(key, field, now).told()}"
        )
    log = _between(key, field, now).log and ends[0] > 0
    return Key(key, now, *ends, log=log, whole=whole)


def _refused(root: Path, one: Key) -> list[str]:
    """Why params.yaml with its ends would not hold."""
    if not one.choices and not one.low < one.high:
        return [f"{one.key}: there is nothing between {one.low:g} and {one.high:g}; give --keys {one.short}=LOW..HIGH"]
    found = []
    for value in one.choices or tuple(int(v) if one.whole else v for v in (one.low, one.high)):
        with tempfile.TemporaryDirectory() as aside:
            try:
                (Path(aside) / "params.yaml").write_text(side.changed(root, {one.key: value}), "utf-8")
                stage.read_params(Path(aside))
            except InputError as error:
                found.append(f"--keys {one.key}, {value}: {error}")
    return found


def _known(fields: dict[str, tuple[FieldInfo, Any]]) -> str:
    return ", ".join(key.removeprefix(f"{SECTION}.") for key in fields)
