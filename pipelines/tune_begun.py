"""Which study goes on: that of the same settings, data and code, also after it has written a winner into params.yaml.

A study keeps params.yaml as it was when it began, and every state of the sections that count which it made of it since.
Limits and the first trial are those of the beginning; who changes params.yaml otherwise begins another study.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import InputError, read_json, write_atomic, write_json
from components.params import load_yaml
from pipelines import stage, tuned_keys
from pipelines.tuned_keys import Key

KEPT = ("finetune", "run")
"""Sections by which a study is told from another; what the others say comes in by what finetune reads."""
BEGUN = "begun/params.yaml"
"""Below a study's folder: params.yaml as it was."""
SAME = "same.json"
"""The sections that count: as they were, and after each winner that the study wrote."""


@dataclass(frozen=True)
class Base:
    """Params that a study began with, or begins with now."""

    text: bytes
    own: dict[str, Any]
    """The sections that count."""
    keys: tuple[Key, ...]

    def name(self, metric: str, read: Mapping[str, str]) -> str:
        """Of a study of these params by that metric; `read` are hashes of what finetune reads."""
        told = [self.own, [(one.told(), one.log) for one in self.keys], metric, dict(read)]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def bases(root: Path, folder: Path, asked: Sequence[str] | None) -> list[Base]:
    """What params.yaml may be a later state of, the study that began or won last first; at the end, itself.

    Raises:
        InputError: what is asked for cannot be tuned.
    """
    now = _base(root, asked)
    places = [one.parent for one in folder.glob(f"*/{SAME}") if now.own in read_json(one)]
    places.sort(key=lambda one: ((one / SAME).stat().st_mtime_ns, one.name), reverse=True)
    found = []
    for place in places:
        try:
            found.append(_base((place / BEGUN).parent, asked))
        except InputError:  # it was begun with code that read other params
            continue
    return [*found, now]


def taken(found: Sequence[Base], folder: Path, metric: str, read: Mapping[str, str]) -> tuple[Base, Path]:
    """The one whose study is there, else params.yaml as it is; and the study's folder, with what it began with."""
    base = next((one for one in found if (folder / one.name(metric, read) / SAME).exists()), found[-1])
    place = folder / base.name(metric, read)
    if not (place / SAME).exists():
        write_atomic(place / BEGUN, base.text)
        write_json(place / SAME, [base.own])
    return base, place


def writes(place: Path, values: dict[str, Any]) -> None:
    """The study in `place` is about to write these params: they are of the same study then."""
    own, same = _own(values), read_json(place / SAME)
    write_json(place / SAME, same if own in same else [*same, own])


def _base(root: Path, asked: Sequence[str] | None) -> Base:
    section = stage.read_params(root)[tuned_keys.SECTION]
    path = root / "params.yaml"
    return Base(path.read_bytes(), _own(load_yaml(path)), tuple(tuned_keys.of(root, section, asked)))


def _own(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it, so that it can be held against what was kept."""
    found: dict[str, Any] = json.loads(json.dumps({name: values.get(name) for name in KEPT}, default=str))
    return found
