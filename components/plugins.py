"""Whatever varies is a plugin: one module whose file name is its name in params.yaml.

``Family("finetune.strategies")`` names the folder components/finetune/strategies. A section of params takes
``strategy: Annotated[Choice, Family("finetune.strategies")]``, written in params.yaml as
``{name: lora, rank: 8}``, or, in a list, as ``lora`` alone where all its options
have defaults (a single choice is spelt out, because dvc.yaml reads its name). The plugin's own
``Params`` validates the options. Modules load only when chosen, so heavy libraries do too.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from components.contracts import InputError
from components.params import Params

_HERE = Path(__file__).parent
APART = ("monitoring",)
"""Folders that are neither a stage nor a family."""


class UnknownPlugin(InputError):
    """A name that no module of the family bears."""


def names(family: str) -> tuple[str, ...]:
    """The plugins of a family, sorted; modules that begin with an underscore are not plugins."""
    folder = _HERE.joinpath(*family.split("."))
    return tuple(sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")))


def families() -> tuple[str, ...]:
    """Every family: the folders below components that hold modules and no stage.py."""
    folders = {p.parent for p in _HERE.rglob("*.py") if p.parent.name not in (_HERE.name, "__pycache__", *APART)}
    return tuple(sorted(".".join(f.relative_to(_HERE).parts) for f in folders if not (f / "stage.py").exists()))


def load(family: str, name: str) -> ModuleType:
    """The module of a plugin.

    Raises:
        UnknownPlugin: no such module; the message lists the known ones.
    """
    known = names(family)
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise UnknownPlugin(f"no {family.replace('.', ' ')} plugin is called {name!r}. {hint}Known: {', '.join(known)}")
    return importlib.import_module(f"components.{family}.{name}")


@dataclass(frozen=True)
class Choice:
    """A chosen plugin with its options."""

    family: str
    name: str
    params: Params

    def load(self) -> ModuleType:
        """The module."""
        return load(self.family, self.name)

    def spec(self) -> dict[str, Any]:
        """As it is written in params.yaml, defaults filled in."""
        return {"name": self.name, **self.params.model_dump(mode="json")}


def choose(family: str, spec: str | dict[str, Any]) -> Choice:
    """A Choice from its written form (`spec()` or params.yaml).

    Raises:
        UnknownPlugin: no such plugin.
        pydantic.ValidationError: its options are wrong.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise InputError(f"give a plugin as {{name: ...}}. Known: {', '.join(names(family))}")
    options = {k: v for k, v in spec.items() if k != "name"}
    module = load(family, spec["name"])
    return Choice(family, spec["name"], module.Params.model_validate(options))


def comparing(kind: str, choice: Choice) -> Choice:
    """A detector that compares this kind of thing, `columns` or `embeddings`.

    Raises:
        ValueError: it does not; the message lists those of its family that do.
    """
    if kind not in choice.load().KINDS:
        fit = [name for name in names(choice.family) if kind in load(choice.family, name).KINDS]
        raise ValueError(f"{choice.name} does not compare {kind}. Those that do: {', '.join(fit)}")
    return choice


@dataclass(frozen=True)
class Family:
    """Marks a field of a section as a choice among the plugins of a family."""

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler

        def validate(value: Any) -> Choice:
            if isinstance(value, Choice):
                return value
            try:
                return choose(self.name, value)
            except InputError as error:
                raise PydanticCustomError("plugin", "{told}", {"told": str(error)}) from None

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(lambda c: c.spec())
        )
