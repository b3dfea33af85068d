"""Which contents of DVC's cache nobody needs: what keep.dvc_cache does not name, in this project and in every other
that shares the cache. Where one of those cannot be seen, nobody knows, and so nothing goes.

DVC tells what no commit names; what is younger than keep.work_days stays all the same: a run that nobody committed yet,
the settings of a sweep that were finished, what a plain `dvc` is just about to record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from components.contracts import InputError
from pipelines import clones, dvc_cli, pointer

if TYPE_CHECKING:
    from pipelines.operations import Keep

_DAY = 86_400.0


def unneeded(root: Path, keep: Keep) -> tuple[list[Path], str]:
    """Files of the cache, lists of folders before what they list; and what is to be said. Inside `turn` of this project
    and of the others.

    Raises:
        InputError: why nobody knows.
    """
    if keep.dvc_cache == "all":
        return [], "left as it is (keep.dvc_cache: all)"
    if not (root / ".dvc").is_dir() or not (root / "dvc.yaml").is_file():
        return [], "none here"
    _check_all_are_seen(root)
    lacking = _untagged(root) if keep.dvc_cache == "tags" else []
    if lacking:
        raise InputError(f"no git tag names the commit of {', '.join(lacking)}, which must stay reproducible")
    sharing = others(root)
    unnamed = dvc_cli.gc(root, keep.dvc_cache, sharing)
    before = time.time() - keep.work_days * _DAY
    young = {path for path in unnamed if _written(path) >= before}
    young |= {inner for path in young if path.suffix == ".dir" for inner in _listed(path)}
    going = [path for path in unnamed if path not in young]
    told = [f"kept for {len(sharing)} more project{'s' if len(sharing) > 1 else ''} that share it"] if sharing else []
    if num := len(young.intersection(unnamed)):
        told.append(f"{num} that no commit names are younger than {keep.work_days:g} days")
    return sorted(going, key=lambda path: path.suffix != ".dir"), "; ".join(told)


def others(root: Path) -> list[Path]:
    """Other projects that are known to share this one's cache, and can be seen."""
    own = _own(root)
    found = (place for place in clones.known(own) if place != root and clones.seen(place))
    return sorted(place for place in found if clones.cache(place) == own)


def _own(root: Path) -> Path:
    return (root / ".dvc" / "cache").resolve()


def _check_all_are_seen(root: Path) -> None:
    cache, own = clones.cache(root), _own(root)
    if cache != own:
        home = cache.parent.parent
        if cache == home / ".dvc" / "cache" and clones.seen(home):
            raise InputError(f"{cache} is shared; the project that it lies in prunes it, {home}")
        raise InputError(
            f"{cache} is shared, and nobody knows all projects that use it. By hand: "
            "`dvc gc --workspace --all-commits --projects` and the folders of all of them"
        )
    noted = clones.known(own).items()
    lost = [(project, note) for project, note in noted if not clones.seen(project) and not clones.over(project)]
    if lost:
        more = f" (nor can {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise InputError(
            f"{lost[0][0]} shares it and cannot be seen from here{more}. If it is gone for good, delete {lost[0][1]}"
        )


def _untagged(root: Path) -> list[str]:
    """Bundles that are live or next in a rollback, whose commits no tag of a release names."""
    from pipelines import release

    found = []
    for environment in pointer.environments(root):
        now = pointer.read(root, environment)
        for one in (now.live, *now.older[:1]) if now else ():
            if not release.tagged(root, one.name, one.version):
                found.append(one.title)
    return sorted(set(found))


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _listed(path: Path) -> Iterator[Path]:
    """The contents of a folder, by its list in the cache."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        for one in json.loads(path.read_bytes()):
            yield path.parent.parent / one["md5"][:2] / one["md5"][2:]
