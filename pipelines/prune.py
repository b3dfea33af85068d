"""`python -m pipelines prune`: remove what is too old to keep, as infra/operations.yaml says.

Records of runs (runs.keep); work folders, workspaces and caches that nobody read (keep.work_days), never while a run
goes on; releases (promote.keep_releases), never one that is live, nor one that rollbacks reach; flow runs in Prefect
(keep.prefect_days); contents of DVC's cache (keep.dvc_cache), never what another project that shares it needs.
Everything is first renamed, so that what is killed in the middle leaves nothing that seems whole.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from components.contracts import InputError
from pipelines import clones, contents, dvc_cli, operations, pointer, promote, records, sweep
from pipelines.bundles import RELEASES
from pipelines.operations import Operations

CACHES = ("features", "prepared", "variants")
"""Kinds of caches that stages share in .graftline/ (Job.cache)."""
WORKSPACES = ("sweep", "backtest", "tune")
"""In .graftline/: clones in which others of its commands run the line; gone when they end, unless killed or --keep."""
PREFECT = ".graftline/prefect"
"""Where `serve` keeps its server's database."""
_MARK = ".pruned-"
_DAY = 86_400.0


@dataclass(frozen=True)
class Heap:
    """What goes of one kind, in the end."""

    what: str
    num: int
    num_bytes: int
    note: str = ""

    def told(self, dry_run: bool) -> str:
        """A line."""
        size = f", {self.num_bytes / 1e6:.1f} MB" if self.num_bytes else ""
        done = "would go" if dry_run else "removed"
        counted = f"{self.num} {done}{size}" if self.num else "" if self.note else "nothing to remove"
        return f"{self.what:22} {'; '.join(filter(None, (counted, self.note)))}"


def prune(root: Path, dry_run: bool) -> list[str]:
    """What was removed, or would be: how many of each kind, and how many MB.

    Raises:
        InputError: infra/operations.yaml cannot be read.
    """
    root = root.resolve()
    settings = operations.read(root)
    heaps = [_records(root, settings, dry_run), _releases(root, settings, dry_run)]
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(dvc_cli.turn(root))
        heaps.append(_work(root, settings, dry_run))
        if not dry_run:
            _forget(root)
            for one in contents.others(root):  # they own no shared cache, so none of them waits for this one so
                stack.enter_context(dvc_cli.turn(one))
        heaps.append(_dvc_cache(root, settings, dry_run))
    return [*(heap.told(dry_run) for heap in heaps), _prefect(root, settings, dry_run)]


def _records(root: Path, settings: Operations, dry_run: bool) -> Heap:
    old = records.names(root)[settings.runs.keep :]
    places = [path for name in old for path in records.folder(root).glob(f"{name}.*")]
    size = sum(_size(path) for path in places)
    num = len(old) if dry_run else records.prune(root, settings.runs.keep)
    return Heap("records of runs", num, size if num else 0)


# --- releases ---


def _releases(root: Path, settings: Operations, dry_run: bool) -> Heap:
    what = f"releases ({RELEASES}/)"
    with _promotions(root, dry_run):
        if not dry_run:
            _sweep(root / RELEASES)
        try:
            kept = _kept(root, settings.promote.keep_releases)
        except InputError as error:
            return Heap(what, 0, 0, f"left as they are: {error}")
        going = [one for one in promote.releases(root) if one.folder.name not in kept and not one.folder.is_symlink()]
        num_bytes = 0
        for one in going:
            for path in (one.folder.with_name(f"{one.folder.name}.tar"), one.folder):
                num_bytes += _size(path)
                if not dry_run:
                    _remove(path, root / RELEASES)
    return Heap(what, len(going), num_bytes)


def _promotions(root: Path, dry_run: bool) -> ExitStack:
    """No pointer is swapped meanwhile."""
    stack = ExitStack()
    if not dry_run:
        stack.enter_context(pointer.changing(root))
    return stack


def _kept(root: Path, num: int) -> set[str]:
    """Folders of releases/ that stay: what is live or within reach of rollbacks anywhere, and the newest of each name.

    Raises:
        InputError: a pointer cannot be read, so nobody knows.
    """
    kept: set[str] = set()
    for environment in pointer.environments(root):
        now = pointer.read(root, environment)
        if now is not None:
            kept |= {Path(one.bundle).name for one in (now.live, *now.older[: max(1, num)])}
    for link in (root / pointer.FOLDER).glob("*"):  # of a pointer that somebody took away, and which may be served
        if link.is_symlink():
            kept.add(Path(os.readlink(link)).name)
    by_name: dict[str, list[promote.Release]] = {}
    for one in promote.releases(root):
        by_name.setdefault(one.name, []).append(one)
    for many in by_name.values():
        kept |= {one.folder.name for one in sorted(many, key=lambda one: one.number)[-num:]}
    return kept


# --- work folders and caches ---


def _work(root: Path, settings: Operations, dry_run: bool) -> Heap:
    what = "work and caches"
    going_on = (one for one in records.history(root)[:200] if one.ended is None and one.flow != "prune")
    busy = [one.id for one in going_on if records.alive(root, one) is not False]
    if busy:
        return Heap(what, 0, 0, f"left as they are: the run {busy[0]} goes on")
    before = time.time() - settings.keep.work_days * _DAY
    num, num_bytes = 0, 0
    if not dry_run:
        _sweep(root / ".graftline")
    for place in [place for place in _places(root) if _last_used(place) < before]:
        with sweep.free(place / ".graftline" / "run.lock") as unheld:  # only a workspace has such a lock of its own
            if unheld:
                num, num_bytes = num + 1, num_bytes + _size(place)
                if not dry_run:
                    _remove(place, root / ".graftline")
    return Heap(what, num, num_bytes)


def _forget(root: Path) -> None:
    """Notes in the cache of workspaces that are gone."""
    cache = clones.cache(root)
    for project in clones.known(cache):
        if clones.over(project):
            clones.forget(cache, project)


def _places(root: Path) -> Iterator[Path]:
    """Every work folder of a stage, every workspace, and every entry of a cache; nothing else that lies there."""
    from pipelines.stage import stage_names

    top = root / ".graftline"
    for name in (*stage_names(root), *CACHES, *WORKSPACES):
        if (top / name).is_dir() and not (top / name).is_symlink():
            yield from sorted((top / name).iterdir())


def _last_used(place: Path) -> float:
    """When anything of it was last read or written. Where the file system keeps no times of reading, it is written.
    Of a workspace, when its line wrote: to prune the cache that it shares reads it each time."""
    if place.parent.name in WORKSPACES:
        parts = [place / name for name in ("params.yaml", "dvc.lock", "artifacts", "reports", ".graftline")]
        files = (path for part in parts for path in (part, *part.rglob("*")) if path.is_file() or path.is_symlink())
        return max((path.lstat().st_mtime for path in files if path.name != "run.lock"), default=0.0)
    newest = 0.0
    for path in (place, *(place.rglob("*") if place.is_dir() and not place.is_symlink() else ())):
        with suppress(FileNotFoundError):
            told = path.lstat()
            is_file = not path.is_dir() or path.is_symlink()  # to list a folder, as here, counts as reading it
            newest = max(newest, told.st_mtime, told.st_atime if is_file else 0.0)
    return newest


# --- DVC's cache ---


def _dvc_cache(root: Path, settings: Operations, dry_run: bool) -> Heap:
    what = "DVC's cache"
    try:
        going, note = contents.unneeded(root, settings.keep)
    except InputError as error:
        return Heap(what, 0, 0, f"left as it is: {error}")
    num_bytes = sum(_size(path) for path in going)
    for path in () if dry_run else going:
        path.unlink(missing_ok=True)
    return Heap(what, len(going), num_bytes, note)


# --- Prefect ---


def _prefect(root: Path, settings: Operations, dry_run: bool) -> str:
    """Its own module imports Prefect, which takes seconds, so only where it has runs."""
    url = os.environ.get("PREFECT_API_URL", "")
    home = Path(os.environ.get("PREFECT_HOME") or os.path.expanduser("~/.prefect"))
    what = "flow runs in Prefect"
    own = (
        None
        if url or os.environ.get("PREFECT_HOME") or not (root / PREFECT / "prefect.db").is_file()
        else root / PREFECT
    )
    if not url and not own and not (home / "prefect.db").is_file() and not (home / "profiles.toml").is_file():
        return Heap(what, 0, 0, "PREFECT_API_URL names no server, and there is no database").told(dry_run)
    from pipelines.flows import old_runs

    try:
        num, note = old_runs.remove(root, settings.keep.prefect_days, dry_run, own)
    except InputError as error:
        return Heap(what, 0, 0, f"left as they are: {error}").told(dry_run)
    return Heap(what, num, 0, note).told(dry_run)


# --- removing ---


def _remove(place: Path, top: Path) -> None:
    """Out of sight at once, then gone."""
    aside = top / f"{_MARK}{os.getpid()}-{time.monotonic_ns()}"
    try:
        os.rename(place, aside)
    except FileNotFoundError:
        return
    _gone(aside)


def _gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sweep(top: Path) -> None:
    """What a prune that was killed had renamed already."""
    for path in top.glob(f"{_MARK}*"):
        _gone(path)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    total = 0
    for one in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        with suppress(FileNotFoundError):
            told = one.lstat()
            total += 0 if stat.S_ISDIR(told.st_mode) else told.st_size
    return total
