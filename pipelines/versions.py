"""The models that a project has made, newest first: at hand, in git's history with DVC's cache, and released.

A version is one content of artifacts/handoff/bundle. dvc.lock in each commit names every output of its run by md5, and
DVC's cache holds those that were not collected; they are read where they lie. A release or a folder is a version of the
project if all its files are that version's by their bytes, and not by what it says of itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.contracts import InputError
from components.handoff import provenance
from components.lineage import hash_file
from pipelines import dvc_cli, locks, processes
from pipelines.bundles import BUNDLE, RELEASES
from pipelines.claims import MODEL

SIGNATURE = "attestation.dsse.json"
"""What a release has beside the files of its bundle."""


class NotHeld(InputError):
    """A file is recorded, but neither in the project nor in DVC's cache."""


@dataclass(frozen=True)
class Version:
    """One model, and where its files are."""

    outs: dict[str, str]
    """Output of the line -> md5; empty for a folder that no run of this project is known for."""
    cache: Path
    commit: str = ""
    """The first that recorded it; empty: none does yet."""
    date: str = ""
    """Of that commit."""
    names: tuple[str, ...] = ()
    """Git tags and releases of it."""
    folder: Path | None = None
    """The bundle as a folder, where it is one."""
    root: Path | None = None
    """The project, where its artifacts are this version."""

    @property
    def title(self) -> str:
        """For people."""
        told = [*self.names, *(["at hand"] if self.root else []), *([self.commit[:10]] if self.commit else [])]
        return ", ".join(told) or (self.folder.name if self.folder else "?")

    @property
    def place(self) -> Path | None:
        """The bundle's folder, where it is one."""
        return self.folder or (self.root / BUNDLE if self.root else None)

    def where(self, path: str) -> Path | None:
        """The file that an output of the line is in; None: it is not to be had here."""
        if self.place and path.startswith(BUNDLE + "/"):
            found = self.place / path.removeprefix(BUNDLE + "/")
            return found if found.is_file() else None
        md5 = self.outs.get(path) or self._inside(path)
        if md5 and (place := self.object(md5)).is_file():
            return place
        return self.root / path if self.root and (self.root / path).is_file() else None

    def object(self, md5: str) -> Path:
        """Where DVC's cache keeps that content."""
        return self.cache / md5[:2] / md5[2:]

    def _inside(self, path: str) -> str | None:
        for out, md5 in self.outs.items():
            if path.startswith(out + "/") and md5.endswith(".dir"):
                return self.listing(md5).get(path.removeprefix(out + "/"))
        return None

    def listing(self, md5: str) -> dict[str, str]:
        """Files of a recorded folder -> md5; empty where the cache does not hold the list."""
        try:
            return {str(one["relpath"]): str(one["md5"]) for one in json.loads(self.object(md5).read_bytes())}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return {}

    def json(self, path: str) -> dict[str, Any]:
        """A JSON file; {} where it is not to be had, or holds something else."""
        found = self.where(path)
        try:
            told = json.loads(found.read_bytes()) if found else {}
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    @cached_property
    def origin(self) -> provenance.Provenance | None:
        """Its provenance; None where it is not to be had, or is none."""
        found = self.where(f"{BUNDLE}/{provenance.FILE}")
        try:
            return provenance.parse(json.loads(found.read_bytes())) if found else None
        except (ValueError, RecursionError):
            return None

    @cached_property
    def files(self) -> dict[str, str]:
        """File of the bundle -> md5, without the signature: of the bytes of a folder, else as DVC has them listed."""
        if not self.place:
            return self.listing(self.outs.get(BUNDLE, ""))
        inside = sorted(p for p in self.place.rglob("*") if p.is_file())
        return {name: _md5(p) for p in inside if (name := p.relative_to(self.place).as_posix()) != SIGNATURE}

    @cached_property
    def md5(self) -> str:
        """Of the whole bundle, as DVC counts it; empty where there is none."""
        return _md5_of(self.files) if self.place else self.outs.get(BUNDLE, "")

    @cached_property
    def model_sha256(self) -> str:
        """Of model.onnx: of its bytes in a folder, else as the recorded provenance says; empty where not known."""
        if self.place:
            found = self.where(f"{BUNDLE}/{MODEL}")
            return hash_file(found) if found else ""
        return self.origin.model_sha256 if self.origin else ""

    @property
    def broken(self) -> str:
        """Why what it says of itself is not to be believed; empty: nothing is known against it."""
        if not self.origin or self.origin.model_sha256 == self.model_sha256:
            return ""
        return f"its {MODEL} is not the one that its {provenance.FILE} tells of"

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The bundle's folder, a copy from the cache where it is not one.

        Raises:
            NotHeld: the cache does not hold all of it.
        """
        if self.place:
            yield self.place
            return
        files = self.listing(self.outs.get(BUNDLE, ""))
        lacking = [name for name, md5 in files.items() if not self.object(md5).is_file()]
        if lacking or not files:
            told = f"{len(lacking)} of {len(files)} files" if files else "its list of files"
            raise NotHeld(
                f"the bundle of {self.title} is recorded, but {told} are not in DVC's cache. `dvc fetch --all-commits` "
                "brings what the remote has; `git checkout` of that commit and `dvc repro` make it again."
            )
        with TemporaryDirectory() as aside:
            top = Path(aside) / "bundle"
            for name, md5 in files.items():
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.object(md5), top / name)  # predict.py looks for its neighbours where it lies
            yield top


@dataclass(frozen=True)
class Versions:
    """All of a project."""

    root: Path
    found: tuple[Version, ...] = field(default=())
    left_out: tuple[str, ...] = ()
    """Folders of releases/ that are no bundles, and why."""

    def same(self, given: Version) -> Version | None:
        """The version that has the same files; else the newest with the same model.onnx, by their bytes."""
        whole = next((one for one in self.found if one.md5 and one.md5 == given.md5), None)
        model = given.files.get(MODEL)
        return whole or next((one for one in self.found if model and one.files.get(MODEL) == model), None)

    def before(self, version: Version) -> Version | None:
        """The one that was made before it."""
        at = next((i for i, one in enumerate(self.found) if one is version), None)
        later = self.found[at + 1 :] if at is not None else self.found
        model = version.files.get(MODEL)
        return next((one for one in later if not model or one.files.get(MODEL) != model), None)


def gather(root: Path) -> Versions:
    """Every version of the project, the newest first."""
    cache = _cache(root)
    recorded = locks.of_history(root)
    tags = locks.tags(root)
    found: dict[str, Version] = {}
    for commit, date, text in recorded:  # the oldest first, so that a version bears the commit that brought it
        outs = locks.outs_of(text)
        if BUNDLE in outs:
            found.setdefault(outs[BUNDLE], Version(outs, cache, commit, date))
    for name, text in locks.of(root, tags.values(), tags):
        md5 = locks.outs_of(text).get(BUNDLE)
        if md5 in found:
            found[md5] = replace(found[md5], names=(*found[md5].names, name))
    versions = list(reversed(found.values()))
    versions = _with_work_tree(root, versions, cache)
    versions, left_out = _with_releases(root, versions, cache)
    return Versions(root, tuple(versions), tuple(left_out))


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5_of(files: dict[str, str]) -> str:
    """Of a folder as DVC counts it: over the list of its files."""
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def at(root: Path, revision: str) -> Version | None:
    """The version of a commit, tag or branch; None where git knows no such thing.

    Raises:
        InputError: it is one, but holds no bundle.
    """
    code, out, _ = processes.quietly(["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"], root)
    if code:
        return None
    commit = out.decode().strip()
    texts = [text for _, text in locks.of(root, [commit], [revision])]
    outs = locks.outs_of(texts[0]) if texts else {}
    if BUNDLE not in outs:
        raise InputError(f"{revision} is a commit of this project, but its dvc.lock records no bundle")
    return Version(outs, _cache(root), commit, names=(revision,) if revision != commit else ())


def _cache(root: Path) -> Path:
    try:
        return dvc_cli.cache_folder(root)
    except InputError:
        return root / ".dvc" / "cache" / "files" / "md5"


def _with_work_tree(root: Path, versions: list[Version], cache: Path) -> list[Version]:
    """What lies in artifacts/ now: one of those, or a new one."""
    lock = root / "dvc.lock"
    outs = locks.outs_of(lock.read_text("utf-8", "replace")) if lock.is_file() else {}
    if not (root / BUNDLE / provenance.FILE).is_file():
        return versions
    here = Version(outs, cache, root=root)
    for i, one in enumerate(versions):
        if one.md5 == here.md5:
            versions[i] = replace(one, root=root)
            return versions
    return [here, *versions]


def _with_releases(root: Path, versions: list[Version], cache: Path) -> tuple[list[Version], list[str]]:
    """Each release with the version that it is of, or as a version of its own; and what is none."""
    left_out = []
    for folder in sorted(p.parent for p in (root / RELEASES).glob(f"*/{provenance.FILE}")):
        released = Version({}, cache, names=(f"{RELEASES}/{folder.name}",), folder=folder)
        try:
            provenance.read(folder)
            same = next((i for i, one in enumerate(versions) if one.md5 == released.md5), None)
        except (InputError, OSError) as error:
            left_out.append(f"{RELEASES}/{folder.name} is left out: {error}")
            continue
        if same is None:
            versions.append(released)
        else:
            one = versions[same]
            versions[same] = replace(one, names=(*one.names, *released.names), folder=one.folder or folder)
    return versions, left_out
