"""Typed sections of params.yaml, and the one reader of it.

Strict: an unknown key, a wrong type or a value out of range is an error; all errors are told together, each
with its key and what is allowed. Reads with the same YAML library as DVC, so both see the same values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from components.contracts import InputError


class ParamsError(InputError):
    """params.yaml cannot be used; `problems` has one line a mistake."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.problems = problems
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__(f"{path.name}: {count}\n" + "\n".join(f"  - {p}" for p in problems))


def _known_keys(names: list[str], wrong: str) -> str:
    close = difflib.get_close_matches(wrong, names, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return f"unknown key. {hint}Known here: {', '.join(sorted(names)) or 'none'}"


class Params(BaseModel):
    """Base of every section and of every plugin's options: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_known_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                cls.__name__, [_detail(e, list(cls.model_fields)) for e in error.errors()]
            ) from None


def _detail(error: Any, names: list[str]) -> InitErrorDetails:
    loc, kind = tuple(error["loc"]), error["type"]
    if kind == "extra_forbidden" and len(loc) == 1:
        message = _known_keys(names, str(loc[0]))
        return InitErrorDetails(
            type=PydanticCustomError("unknown_key", "{told}", {"told": message}), loc=loc, input=error["input"]
        )
    told = PydanticCustomError(kind, "{told}", {"told": error["msg"].removeprefix("Value error, ")})
    return InitErrorDetails(type=told, loc=loc, input=error["input"])


class Limited(Params):
    """A metric and exactly one limit for it: what a rule of the gate and one of the monitor share."""

    metric: str
    """<stage>.<metric>"""
    at_least: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    """The smallest value that passes."""
    at_most: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    """The largest value that passes."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            given = "neither" if self.at_least is None else "both"
            raise ValueError(f"give exactly one of `at_least` and `at_most` for {self.metric} (given: {given})")
        return self

    @property
    def limit(self) -> float:
        """The limit, whichever side it is on."""
        limit = self.at_least if self.at_least is not None else self.at_most
        assert limit is not None, "one of the two is there"
        return float(limit)

    @property
    def side(self) -> str:
        """at_least or at_most."""
        return "at_least" if self.at_least is not None else "at_most"

    def title(self) -> str:
        """'evaluate.accuracy_low at least 0.95'"""
        return f"{self.metric} {self.side.replace('_', ' ')} {self.limit:.12g}"


class Run(Params):
    """Section `run`: what holds for every stage."""

    name: str = Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the project; the bundle bears it."""
    seed: int = Field(ge=0, lt=2**32)
    """All randomness is drawn from it."""
    task: str
    """A module of components/tasks: what a sample is."""
    decision: str
    """A module of components/decisions: what is decided about a sample."""
    device: Literal["auto", "cpu", "cuda"]
    """auto: cuda where there is a device, else cpu."""
    threads: int = Field(ge=1, le=256)
    """CPU threads. Another number gives other last bits, so it is pinned here and recorded."""
    instruction_set: Literal["avx2", "native"]
    """avx2: the same bits on every x86 machine that has it. native: faster, bits differ between machines."""


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: it is not there, not UTF-8, not YAML, has a key twice, or is not a mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.name} is not in {path.parent.resolve()}. Run from a project's root.") from None
    except UnicodeDecodeError as error:
        raise ParamsError(path, [f"not UTF-8 at byte {error.start}; save it as UTF-8"]) from None
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        told = str(error.problem).split(" with value")[0]
        raise ParamsError(path, [f"line {line}: {told}; keep one of the two"]) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ParamsError(path, [f"line {line}: not valid YAML: {error.problem}"]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ParamsError(path, [f"not valid YAML: {(str(error) or type(error).__name__).splitlines()[0]}"]) from None
    except OSError as error:
        raise ParamsError(path, [f"cannot be read: {error.strerror}"]) from None
    if not isinstance(value, dict):
        raise ParamsError(path, ["it must be a mapping with one section a stage"])
    return value


def read(path: Path, sections: Mapping[str, type[Params]]) -> dict[str, Params]:
    """Every section of a params file, typed.

    Raises:
        ParamsError: with all mistakes of all sections at once.
    """
    raw = load_yaml(path)
    problems: list[str] = []
    typed: dict[str, Params] = {}
    for key in raw:
        if key not in sections:
            problems.append(f"{key}: {_known_keys(list(sections), str(key))}")
    for name, cls in sections.items():
        if name not in raw:
            problems.append(f"{name}: this section is missing. Its keys: {', '.join(cls.model_fields) or 'none'}")
            continue
        try:
            typed[name] = cls.model_validate(raw[name] if raw[name] is not None else {})
        except ValidationError as error:
            problems += [f"{_key(name, e['loc'])}: {_told(e)}" for e in error.errors()]
    if problems:
        raise ParamsError(path, problems)
    return typed


def _key(section: str, loc: tuple[int | str, ...]) -> str:
    return section + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)


def _told(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = error["input"]
    if error["type"] == "missing":
        return "this key is missing"
    if error["type"] == "unknown_key" or isinstance(given, dict):
        return message
    return f"{message} (given: {given!r})"


def flat(key: str, value: Any) -> dict[str, Any]:
    """Nested mappings and lists as one, with dotted keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner:
        return {key: value}
    return {k: v for part, one in inner for k, v in flat(f"{key}.{part}" if key else str(part), one).items()}
