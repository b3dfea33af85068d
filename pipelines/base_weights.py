"""The weights that params name, as they lie here, by hash. Nothing of them is loaded, and no package imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components import lineage
from components.contracts import InputError


def named_in(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, spec) of every `weights` of params that names a file or a package."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for part, one in inner:
        below = f"{key}.{part}" if key else str(part)
        if isinstance(one, dict) and one.get("source") in ("file", "package") and one.get("path"):
            yield below, one
        else:
            yield from named_in(one, below)


def hash_at_hand(root: Path, spec: dict[str, Any]) -> str:
    """Of the file or folder at hand, as a pin has it.

    Raises:
        InputError: it is not there, or the spec is none.
    """
    path = spec["path"]
    if spec["source"] == "file" and isinstance(path, str):
        if (root / path).is_file():
            return lineage.hash_file(root / path)
        if not (root / path).exists():
            raise InputError(f"not there: looked for at {root / path}; put it there")

    from components import model_folder, weights

    known = {key: spec[key] for key in ("source", "package", "path") if spec.get(key) is not None}
    try:
        typed = weights.Weights.model_validate({**known, "sha256": "0" * 64})
    except ValidationError as error:
        raise InputError(f"cannot be weights: {error.errors()[0]['msg']}") from None
    typed = typed.model_copy(update={"sha256": None})  # no pin: it is what we compare
    try:
        return lineage.hash_file(weights.weights_file(typed))
    except weights.WeightsError:
        pass  # a folder, or nothing
    folder = model_folder.open_folder(typed, None, None)
    return model_folder.digest(typed, folder, model_folder.weights_files(folder))
