"""`python -m pipelines predict BUNDLE FILE...`: a bundle's own predict.py in its own process, once its hashes hold."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from components.contracts import InputError, Refused
from pipelines import bundles, processes

_FORGOTTEN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


def predict(root: Path, bundle: str, words: Sequence[str]) -> int:
    """Its exit code. `words` are those of predict.py, with --key FILE or --unsigned among them; all else is its own.
    Without either, this user's own key is taken, as `verify` does.

    Raises:
        InputError: no such bundle, or no key.
        Refused: the bundle does not hold; nothing of it was run.
    """
    key, unsigned, rest = _own(words)
    if not rest:
        raise InputError("name at least one file, or --help for what the bundle's predict.py takes")
    with bundles.trusted(root, bundle, bundles.trusted_key(key, unsigned), unsigned) as (folder, told):
        print(f"verified: {told}", file=sys.stderr)
        program = folder / "predict.py"
        if not program.is_file():
            raise Refused(f"{folder.name} holds no predict.py")
        kept = {name: value for name, value in os.environ.items() if name not in _FORGOTTEN}
        return processes.through([sys.executable, "-B", str(program.absolute()), *rest], root, kept)


def _own(words: Sequence[str]) -> tuple[str | None, bool, list[str]]:
    """--key and --unsigned, and everything else as it was given."""
    parser = argparse.ArgumentParser(prog="python -m pipelines predict BUNDLE", add_help=False, allow_abbrev=False)
    parser.add_argument("--key")
    parser.add_argument("--unsigned", action="store_true")
    known, rest = parser.parse_known_args(list(words))
    return known.key, known.unsigned, rest
