"""The same commit built in ten places that differ in one thing each: a table of SHA-256, and 1 if two differ.

    python tests/reproducibility/matrix.py                    images and texts, all variations
    python tests/reproducibility/matrix.py image --only path,clock

Small and real: pictures of shapes and timm's test network, sentences and a BERT of two layers with random weights;
every stage, through DVC, from a clone of one commit. Each variation says by which means it is made.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from projects import make_project  # noqa: E402

from components import lineage  # noqa: E402

TRACKED = {
    "manifest": "ingest/manifest.parquet",
    "weights": "finetune/runs/main/weights.safetensors",
    "onnx": "export/model.onnx",
    "bom": "handoff/bundle/bom.cdx.json",
    "provenance": "handoff/bundle/provenance.json",
    "bundle": "handoff/bundle",
    "lineages": "",
}
MARK = "qxz7"
"""In every name that a variation invents, so that a leak of it is found in what was made."""


@dataclass(frozen=True)
class Place:
    """Where and how the line runs."""

    folder: Path
    means: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    python: Path = Path(sys.executable)
    backwards: bool = False
    """The files of the data are made in the opposite order."""
    umask: int = 0o022


def variations(scratch: Path) -> dict[str, Callable[[], Place]]:
    """The reference, and one change each."""

    def at(name: str) -> Path:
        return scratch / name / "project"

    def path() -> Place:
        return Place(
            scratch / f"{MARK} elsewhere é" / "deeper" / "still" / "p", "another, longer, with a blank and an é"
        )

    def environment() -> Place:
        own = scratch / f"{MARK}-venv"
        own.symlink_to(Path(sys.prefix), target_is_directory=True)
        return Place(
            at("venv"), "the same libraries through a link: other paths of modules", python=own / "bin" / "python"
        )

    def user() -> Place:
        home = scratch / f"{MARK}-home"
        home.mkdir()
        names = {"HOME": str(home), "USER": f"{MARK}user", "LOGNAME": f"{MARK}user"}
        wrapper = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
        real = subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode == 0
        told = (
            "uid 12345 in a user namespace, HOME, USER" if real else "HOME, USER, LOGNAME alone: no user namespace here"
        )
        return Place(at("user"), told, names, wrapper if real else ())

    def clock() -> Place:
        library = scratch / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        return Place(at("clock"), "a year ahead, by a preloaded library", {"LD_PRELOAD": str(library)})

    def cores() -> Place:
        first = str(min(os.sched_getaffinity(0)))
        return Place(
            at("cores"),
            "one core; there is no worker count, and run.threads is pinned",
            wrapper=("taskset", "-c", first),
        )

    return {
        "reference": lambda: Place(at("reference"), "umask 022"),
        "path": path,
        "venv": environment,
        "user": user,
        "umask": lambda: Place(at("umask"), "077", umask=0o077),
        "timezone": lambda: Place(at("timezone"), "Pacific/Kiritimati, UTC+14", {"TZ": "Pacific/Kiritimati"}),
        "locale": lambda: Place(at("locale"), "LC_ALL=C", {"LC_ALL": "C", "LANG": "C"}),
        "hashseed": lambda: Place(at("hashseed"), "PYTHONHASHSEED=4711", {"PYTHONHASHSEED": "4711"}),
        "files": lambda: Place(at("files"), "the data's files made in the opposite order", backwards=True),
        "clock": clock,
        "cores": cores,
    }


# --- the two projects ---


def small(values: Any) -> None:
    values["validate"]["checks"] = [{"name": "labels", "min_per_label": 3}, {"name": "duplicates"}]
    values["finetune"] |= {"strategy": {"name": "full", "epochs": 2}, "references": ["from_scratch"], "batch_size": 16}
    values["evaluate"]["num_bootstrap"] = values["bias"]["num_bootstrap"] = values["bias"]["num_permutations"] = 100
    values["bias"]["min_group_size"] = 5
    values["drift"]["embeddings"] = {"name": "permutation_mmd", "num_permutations": 100, "alpha": 0.01}
    values["select"]["budget"] = {"max_parameters_millions": None, "max_gmacs": None, "max_latency_ms": None}
    values["gate"]["rules"] = [{"metric": "evaluate.accuracy", "at_least": 0.0}]
    values["export"] |= {"variant": "fp32", "rungs": []}  # a ladder decides by measured times
    values["handoff"]["examples"] = 3


def image(values: Any) -> None:
    small(values)
    values["run"]["name"] = "shapes"
    values["ingest"] = {"source": {"name": "image_folder"}, "data": "shapes"}
    values["select"]["candidates"] = [
        {"name": "timm", "model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}}
    ]


def text(values: Any) -> None:
    import tiny_language_models

    small(values)
    values["run"] |= {"name": "meals", "task": "text_classification"}
    values["ingest"] = {"source": {"name": "text_table", "text": "text", "label": "label"}, "data": "meals.jsonl"}
    values["augment"]["policy"] = {"name": "eda"}
    with tempfile.TemporaryDirectory() as aside:
        put_encoder(Path(aside), backwards=False)
        pin = tiny_language_models.pin(Path(aside))
    weights = {"source": "file", "path": "encoder", "sha256": pin}
    values["select"]["candidates"] = [{"name": "transformers", "model": "tiny", "max_tokens": 32, "weights": weights}]
    values["bias"]["properties"] = ["num_words"]


@cache
def encoder() -> dict[str, bytes]:
    """File -> content. Made once: the library that trains the tokenizer breaks ties another way each time."""
    import tiny_encoders

    with tempfile.TemporaryDirectory() as aside:
        return {p.name: p.read_bytes() for p in sorted(tiny_encoders.saved("bert", Path(aside)).iterdir())}


def put_encoder(folder: Path, backwards: bool) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in sorted(encoder().items(), reverse=backwards):
        (folder / name).write_bytes(content)


def image_data(folder: Path, backwards: bool) -> None:
    import factories

    with tempfile.TemporaryDirectory() as aside:
        made = factories.image_folder(Path(aside), per_label=40)
        for path in sorted(made.rglob("*.png"), reverse=backwards):
            place = folder / "shapes" / path.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def text_data(folder: Path, backwards: bool) -> None:
    import json

    import factories
    import numpy as np

    rng = np.random.default_rng(5)
    labels = sorted(factories.WORDS)
    rows = [{"text": factories.sentence(labels[n % 2], rng), "label": labels[n % 2]} for n in range(120)]

    def table() -> None:
        (folder / "meals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    for make in [lambda: put_encoder(folder / "encoder", backwards), table][:: -1 if backwards else 1]:
        make()


PROJECTS = {"image": (image, image_data), "text": (text, text_data)}


# --- running ---


def build(base: Path, place: Place, data: Callable[[Path, bool], None]) -> dict[str, str]:
    """Clone, put the data there, run the line; what was made -> its SHA-256."""
    before = os.umask(place.umask)
    try:
        place.folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", str(base), str(place.folder)], check=True)
        data(place.folder, place.backwards)
        command = [*place.wrapper, str(place.python), "-m", "pipelines", "repro"]
        apart = ("ATEN_", "ONEDNN_", "MKL_", "OMP_", "OPENBLAS_", "PYTHONHASHSEED", "GIT_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(apart)}
        own = {"PATH": f"{place.python.parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command,
            cwd=place.folder,
            env={**kept, **own, **place.environment},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.umask(before)
    if done.returncode:
        sys.exit(f"the line ended with {done.returncode} ({place.means})\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    made = place.folder / "artifacts"
    found = {name: lineage.hash_path(made / path) for name, path in TRACKED.items() if path and (made / path).exists()}
    together = "".join(lineage.hash_file(p) for p in sorted(made.glob("*/lineage.json")))
    return {**found, "lineages": hashlib.sha256(together.encode()).hexdigest()}


def leaks(place: Place) -> list[str]:
    """Files that hold the mark of a variation, this machine's name, or the place where they were made."""
    told = {MARK, str(place.folder), str(ROOT), sys.prefix, str(Path.home())}
    told |= {name for name in (socket.gethostname(), platform.node()) if len(name) > 6}
    user = getpass.getuser()
    told |= {f"/home/{user}"}
    words = [one.encode() for one in told if len(one) > 3]
    files = (p for p in (place.folder / "artifacts").rglob("*") if p.is_file())
    return [p.relative_to(place.folder).as_posix() for p in files if any(w in p.read_bytes() for w in words)]


def run(kind: str, only: list[str] | None, scratch: Path) -> bool:
    """Build one project everywhere and tell; whether all is the same."""
    change, data = PROJECTS[kind]
    dates = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    os.environ.update(dates)
    base = make_project(scratch / "base", change)
    known = variations(scratch)
    chosen = [n for n in known if only is None or n in ("reference", *only)]
    reference: dict[str, str] = {}
    same = True
    for name in chosen:
        place = known[name]()
        started = time.monotonic()
        made = build(base, place, data)
        reference = reference or made
        differing = [part for part in {**reference, **made} if made.get(part) != reference.get(part)]
        if name == "reference":
            print(f"\n{kind:10} {''.join(f'{part:10}' for part in made)}", flush=True)
        cells = "".join(f"{digest[:8] + ('*' if part in differing else ''):10}" for part, digest in made.items())
        leaked = leaks(place)
        print(f"{name:10} {cells} {time.monotonic() - started:4.0f} s  {place.means}", flush=True)
        for path in leaked[:5]:
            print(f"{'':10} holds a name of this machine: {path}")
        for path in _others(place, known["reference"]().folder) if differing else ():
            print(f"{'':10} differs: {path}")
        same &= not differing and not leaked
        if name != "reference" and not differing and not leaked:
            shutil.rmtree(place.folder)
    return same


def _others(place: Place, reference: Path) -> list[str]:
    names = sorted(
        p.relative_to(place.folder).as_posix() for p in (place.folder / "artifacts").rglob("*") if p.is_file()
    )
    here, there = (lineage.hashes(folder, names) for folder in (place.folder, reference))
    return [n for n in names if here.get(n) != there.get(n)][:12]


def main(words: list[str] | None = None) -> int:
    """Exit code: 0 all the same, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="*", choices=[[], *PROJECTS], help="image, text; all if none is named")
    parser.add_argument("--only", help="some of the variations, with commas: " + ", ".join(variations(Path())))
    parser.add_argument("--keep", action="store_true", help="leave what was made")
    given = parser.parse_args(words)
    same = True
    for kind in given.kind or PROJECTS:
        scratch = Path(tempfile.mkdtemp(prefix=f"matrix-{kind}-")).resolve()
        try:
            same &= run(kind, given.only.split(",") if given.only else None, scratch)
        finally:
            if given.keep:
                print(f"{'':10} left in {scratch}")
            else:
                shutil.rmtree(scratch, ignore_errors=True)
    print("\nall the same" if same else "\nNOT all the same", flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
