"""The models that a project has made, newest first: at hand, in git's history with DVC's cache, and released.

A version is one content of artifacts/handoff/bundle. dvc.lock in each commit names every output of its run by md5, and
DVC's cache holds those that were not collected; they are read where they lie. A release is the version with its model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.contracts import InputError
from pipelines import dvc_cli, processes

BUNDLE = "artifacts/handoff/bundle"
RELEASES = "releases"
_OUTS = re.compile(r"^    outs:\n((?:    - .*\n|      .*\n)*)", re.M)
_OUT = re.compile(r"^    - path: (\S+)\n(?:      .*\n)*?      md5: (\S+)$", re.M)


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

    def where(self, path: str) -> Path | None:
        """The file that an output of the line is in; None: it is not to be had here."""
        if self.folder and path.startswith(BUNDLE + "/"):
            found = self.folder / path.removeprefix(BUNDLE + "/")
            return found if found.is_file() else None
        if self.root and (self.root / path).is_file():
            return self.root / path
        md5 = self.outs.get(path) or self._inside(path)
        return place if md5 and (place := self.object(md5)).is_file() else None

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
        place = self.object(md5)
        if not place.is_file():
            return {}
        return {one["relpath"]: one["md5"] for one in json.loads(place.read_bytes())}

    def json(self, path: str) -> Any:
        """The value of a JSON file; None where it is not to be had."""
        found = self.where(path)
        return json.loads(found.read_bytes()) if found else None

    @cached_property
    def model_sha256(self) -> str:
        """Of model.onnx; empty where it is not known."""
        told = self.json(f"{BUNDLE}/provenance.json") or {}
        subjects = told.get("subject", ()) if isinstance(told, dict) else ()
        return next((one["digest"]["sha256"] for one in subjects if one["name"] == "model.onnx"), "")

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The bundle's folder, made of links to the cache where it is not one.

        Raises:
            NotHeld: the cache does not hold all of it.
        """
        place = self.folder or (self.root / BUNDLE if self.root else None)
        if place:
            yield place
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
                (top / name).symlink_to(self.object(md5))
            yield top


@dataclass(frozen=True)
class Versions:
    """All of a project."""

    root: Path
    found: tuple[Version, ...] = field(default=())

    @cached_property
    def by_model(self) -> dict[str, Version]:
        """sha256 of model.onnx -> the version."""
        return {one.model_sha256: one for one in reversed(self.found) if one.model_sha256}

    def before(self, version: Version) -> Version | None:
        """The one that was made before it."""
        at = next((i for i, one in enumerate(self.found) if one is version), None)
        later = self.found[at + 1 :] if at is not None else self.found
        return next((one for one in later if one.model_sha256 != version.model_sha256), None)


def gather(root: Path) -> Versions:
    """Every version of the project, the newest first."""
    cache = _cache(root)
    locks = _history(root)
    tags = _tags(root)
    found: dict[str, Version] = {}
    for commit, date, text in locks:  # the oldest first, so that a version bears the commit that brought it
        outs = outs_of(text)
        if BUNDLE in outs:
            found.setdefault(outs[BUNDLE], Version(outs, cache, commit, date))
    for name, text in _locks(root, tags.values(), tags):
        md5 = outs_of(text).get(BUNDLE)
        if md5 in found:
            found[md5] = replace(found[md5], names=(*found[md5].names, name))
    versions = list(reversed(found.values()))
    versions = _with_work_tree(root, versions, cache)
    return Versions(root, tuple(_with_releases(root, versions, cache)))


def outs_of(text: str) -> dict[str, str]:
    """Output -> md5 of a dvc.lock, as DVC writes it. By its lines: parsing YAML takes 45 ms a lock."""
    return {path: md5 for block in _OUTS.findall(text) for path, md5 in _OUT.findall(block)}


def at(root: Path, revision: str) -> Version | None:
    """The version of a commit, tag or branch; None where git knows no such thing.

    Raises:
        InputError: it is one, but holds no bundle.
    """
    code, out, _ = processes.quietly(["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"], root)
    if code:
        return None
    commit = out.decode().strip()
    texts = [text for _, text in _locks(root, [commit], [revision])]
    outs = outs_of(texts[0]) if texts else {}
    if BUNDLE not in outs:
        raise InputError(f"{revision} is a commit of this project, but its dvc.lock records no bundle")
    return Version(outs, _cache(root), commit, names=(revision,) if revision != commit else ())


def _cache(root: Path) -> Path:
    try:
        return dvc_cli.cache_folder(root)
    except InputError:
        return root / ".dvc" / "cache" / "files" / "md5"


def _git(root: Path, *arguments: str) -> str:
    code, out, _ = processes.quietly(["git", "--no-optional-locks", *arguments], root)
    return out.decode("utf-8", "replace") if code == 0 else ""


def _history(root: Path) -> list[tuple[str, str, str]]:
    """(commit, day, dvc.lock) of every commit that changed it, of branches and tags, the oldest first."""
    told = _git(
        root, "log", "--branches", "--tags", "HEAD", "--date-order", "--reverse", "--format=%H %cs", "--", "dvc.lock"
    )
    lines = [line.split(" ") for line in told.splitlines()]
    days = dict(lines)
    return [(commit, days[commit], text) for commit, text in _locks(root, days, days)]


def _tags(root: Path) -> dict[str, str]:
    told = _git(
        root,
        "for-each-ref",
        "refs/tags",
        "--format=%(refname:short) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)",
    )
    return dict(line.rsplit(" ", 1) for line in told.splitlines() if " " in line)


def _locks(root: Path, commits: Iterable[str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, dvc.lock) of those commits that have one, in one call of git."""
    asked = list(commits)
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    given = "".join(f"{commit}:{prefix}dvc.lock\n" for commit in asked).encode()
    if not asked:
        return
    code, out, _ = processes.quietly(["git", "cat-file", "--batch"], root, given)
    at = 0
    for name in names if code == 0 else ():
        end = out.index(b"\n", at)
        head = out[at:end].split(b" ")
        at = end + 1
        if head[-1] == b"missing":
            continue
        size = int(head[-1])
        yield name, out[at : at + size].decode("utf-8", "replace")
        at += size + 1


def _with_work_tree(root: Path, versions: list[Version], cache: Path) -> list[Version]:
    """What lies in artifacts/ now: one of those, or a new one."""
    lock, place = root / "dvc.lock", root / BUNDLE / "provenance.json"
    outs = outs_of(lock.read_text("utf-8", "replace")) if lock.is_file() else {}
    if not place.is_file():
        return versions
    here = Version(outs, cache, root=root)
    for i, one in enumerate(versions):
        recorded = one.outs.get(BUNDLE) == outs.get(BUNDLE) and not one.model_sha256  # by the cache's own word else
        if recorded or one.model_sha256 == here.model_sha256:
            versions[i] = replace(one, root=root)
            return versions
    return [here, *versions]


def _with_releases(root: Path, versions: list[Version], cache: Path) -> list[Version]:
    folders = sorted(p.parent for p in (root / RELEASES).glob("*/provenance.json"))
    for folder in folders:
        released = Version({}, cache, names=(f"{RELEASES}/{folder.name}",), folder=folder)
        same = next((i for i, one in enumerate(versions) if one.model_sha256 == released.model_sha256), None)
        if same is None:
            versions.append(released)
        else:
            one = versions[same]
            versions[same] = replace(one, names=(*one.names, *released.names), folder=one.folder or folder)
    return versions
