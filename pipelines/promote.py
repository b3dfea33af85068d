"""Which bundle is live: make a release live, go back to the one before, tell what is live.

A release goes live only if all of it is what was signed by whom you trust, if it bears the three blessings
(blessings.py), if its model loads and answers its own examples in a fresh process here (trial.py), and if it does not
lose more accuracy to the live one than promote.max_loss (contest.py). What is live stands in the pointer (pointer.py)
alone; the git tags of GTO come after it, for others to see. Nothing heavy is imported, so that going back is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import InputError, Refused
from pipelines import bundles, pointer, runs
from pipelines.bundles import RELEASES
from pipelines.live import Live, deployed, digest, environment_of, holds, listed, live
from pipelines.pointer import Entry, Pointer
from pipelines.triggers import Trigger

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from pipelines.operations import Promote

__all__ = ["Live", "Release", "deployed", "live", "promote", "releases", "rollback"]


@dataclass(frozen=True)
class Release:
    """A folder of releases/, by its name."""

    name: str
    version: str
    folder: Path

    @property
    def number(self) -> tuple[int, ...]:
        """To be compared."""
        return tuple(map(int, self.version.split(".")))


def promote(
    root: Path, which: str | None, environment: str | None, key: Path | None, because: str, allow_older: bool = False,
    trigger: Trigger | None = None,
) -> list[str]:  # fmt: skip
    """Make a release live; what was decided, by lines. `which`: a version, or a folder of releases/; None: the newest.
    `trigger`: what started it, where that is not for the environment to tell.

    Raises:
        InputError: there is no such release, or no key.
        Refused: it may not go live; nothing was changed.
    """
    root = root.resolve()
    with runs.recorded(root, "promote", trigger or runs.guess_trigger(because), how=()) as run:
        settings = _settings(root)
        place = pointer.checked(environment or settings.environment)
        before = pointer.read(root, place)
        one = _found(root, which, before)
        public = _public(key)
        told = _judged(root, one, before, public, settings, allow_older)
        told += _swap(root, one, before, (place, public, run, because, allow_older, settings))
        run.end(0, f"{place}: {one.name} {one.version} is live{f', because {because}' if because else ''}")
    return told


def _judged(
    root: Path, one: Release, before: Pointer | None, key: Ed25519PublicKey, settings: Promote, allow_older: bool
) -> list[str]:
    """Everything that takes time, before the pointer is held."""
    from pipelines import blessings, trial

    told = [f"{RELEASES}/{one.folder.name}: {_verified(one, key)}"]
    found = blessings.read(one.folder, settings.min_queries)
    lacking = [f"{blessing.name}: {line}" for blessing in found for line in blessing.problems]
    if lacking:
        raise Refused(listed(f"{one.name} {one.version} is not blessed", lacking))
    told += [f"  {blessing.name}: {blessing.told}" for blessing in found]
    told.append(f"  here: {trial.answers(one.folder)}")
    return [*told, *_compared(root, one, before, settings, allow_older)]


def _compared(root: Path, one: Release, before: Pointer | None, settings: Promote, allow_older: bool) -> list[str]:
    """Against what is live."""
    if before is None or (before.live.name, before.live.version) == (one.name, one.version):
        return []
    now = before.live
    if not allow_older:
        if now.name != one.name:
            raise Refused(
                f"{now.title} is live in {before.environment}, and {one.name} is another name, so nobody knows which "
                "is newer. Another environment, or --allow-older"
            )
        if one.number < tuple(map(int, now.version.split("."))):
            raise Refused(
                f"{one.version} is older than {now.version}, which is live in {before.environment}. To go back to the "
                "one before: `python -m pipelines rollback`. To make this one live all the same: --allow-older"
            )
    if settings.max_loss is None:
        return ["  against the live one: not asked (promote.max_loss is null)"]
    from pipelines import contest

    problems = holds(root, now, None)
    if problems:
        hint = f"Bring it back ({now.bundle}.tar holds it), or roll back first; or promote.max_loss: null"
        raise Refused(f"{listed(f'{now.title} is live and is to be compared, but does not hold', problems)}\n{hint}")
    return [f"  against the live one: {contest.held(root, one.folder, root / now.bundle, settings.max_loss)}"]


def _swap(root: Path, one: Release, before: Pointer | None, given: tuple[Any, ...]) -> list[str]:
    """Under the lock: again what may have changed meanwhile, then the pointer."""
    environment, public, run, because, allow_older, settings = given
    with pointer.changing(root):
        now = pointer.read(root, environment)
        if now is not None and (before is None or now.live != before.live):
            _compared(root, one, now, settings, allow_older)
        _verified(one, public)  # nothing of it may have gone or changed since
        sha256 = digest(one.folder)
        same = now is not None and (now.live.name, now.live.version) == (one.name, one.version)
        if same and now is not None:
            entry, after = now.live, now
            if entry.sha256 != sha256:
                raise Refused(f"{entry.title} is live with another signature than {RELEASES}/{one.folder.name} has now")
            told = [f"{environment}: {entry.title} is live already, since {entry.since}", pointer.follow(root, after)]
        else:
            entry = Entry(one.name, one.version, sha256, _now(), run.record.trigger.who, because, run.id)
            after = pointer.promoted(now, environment, entry)
            told = [f"{environment}: {entry.title} is live", pointer.write(root, after)]
            told.append(f"  before: {now.live.title}" if now else "")
    told.append(_staged(root, environment, entry))
    if not same:
        _notice(root, "promoted", f"{environment}: {entry.title} is live. {because}".strip(), run.id)
    return [line for line in told if line]


def rollback(root: Path, environment: str | None, key: Path | None, because: str, to: str | None = None) -> list[str]:
    """Make the bundle before live again, or one further back (`to`, a version); what was done, by lines.

    Raises:
        InputError: nothing is live there, or nothing was before; no key.
        Refused: that bundle does not hold; nothing was changed.
    """
    root = root.resolve()
    with runs.recorded(root, "rollback", runs.guess_trigger(because), how=()) as run:
        place = environment_of(root, environment)
        with pointer.changing(root):
            now = pointer.read(root, place)
            if now is None:
                raise InputError(f"nothing was promoted to {place}, so there is nothing to go back from")
            steps = _steps(now, to)
            back, public = now.older[steps - 1], _public(key)
            problems = holds(root, back, public)
            if problems:
                told = listed(f"{back.title}, which was live before {now.live.title}, does not hold", problems)
                raise Refused(f"{told}\n{_further(root, now, steps, public)}")
            entry = Entry(back.name, back.version, back.sha256, _now(), run.record.trigger.who, because, run.id)
            complaint = pointer.write(root, pointer.rolled_back(now, steps, entry))
        run.end(0, f"{place}: back to {entry.title} from {now.live.title}{f', because {because}' if because else ''}")
    told_stage = _staged(root, place, entry)
    _notice(root, "rolled_back", f"{place}: back to {entry.title} from {now.live.title}. {because}".strip(), run.id)
    lines = [f"{place}: {entry.title} is live again; {now.live.title} is not any more", complaint, told_stage]
    return [line for line in lines if line]


def _steps(now: Pointer, to: str | None) -> int:
    if not now.older:
        raise InputError(
            f"nothing was live in {now.environment} before {now.live.title}, so there is nothing to go back to"
        )
    versions = [one.version for one in now.older]
    if to is not None and to not in versions:
        raise InputError(
            f"--to: {to} was not live in {now.environment} before. These were: {', '.join(dict.fromkeys(versions))}"
        )
    return versions.index(to) + 1 if to is not None else 1


def _further(root: Path, now: Pointer, steps: int, key: Ed25519PublicKey) -> str:
    """What could be gone back to instead."""
    for one in now.older[steps:]:
        if one.version != now.older[steps - 1].version and not holds(root, one, key):
            return f"The next older one that holds is {one.version}: `python -m pipelines rollback --to {one.version}`"
    return "None of those before it holds either. Bring one back from its .tar, or promote another release"


def _verified(one: Release, key: Ed25519PublicKey) -> str:
    if one.folder.is_symlink():
        raise Refused(f"{RELEASES}/{one.folder.name} is a link, and what it leads to may change. Put the folder there")
    from components.handoff import verify_bundle

    problems, told = verify_bundle.check(one.folder, key)
    if problems:
        raise Refused(listed(f"{RELEASES}/{one.folder.name} is not what was signed by whom you trust", problems))
    return told.partition(": ")[2]


# --- which one ---


def _found(root: Path, which: str | None, before: Pointer | None) -> Release:
    from components.handoff.verify_bundle import VERSION

    if which is not None and not VERSION.fullmatch(which):
        return _by_place(root, which)
    known = releases(root)
    if which is not None:
        known = [one for one in known if one.version == which]
    names = sorted({one.name for one in known})
    if before is not None and before.live.name in names:
        known = [one for one in known if one.name == before.live.name]
    elif len(names) > 1:
        raise InputError(
            f"releases of {len(names)} names lie there: {', '.join(names)}. Name the folder, {RELEASES}/NAME-VERSION"
        )
    if not known:
        told = f"no release {which}" if which else "no release yet"
        raise InputError(f"{RELEASES}/ holds {told}. `python -m pipelines release` makes one")
    return max(known, key=lambda one: one.number)


def _by_place(root: Path, which: str) -> Release:
    place = root / which if (root / which).exists() or (root / which).is_symlink() else root / RELEASES / which
    found = pointer.named(place.name)
    if found is None or not (place.is_dir() or place.is_symlink()):
        raise InputError(f"{which} is neither a version such as 1.2.0, nor a folder {RELEASES}/NAME-VERSION")
    if place.parent.resolve() != (root / RELEASES).resolve():
        raise InputError(
            f"{which} does not lie in {RELEASES}/, where live bundles are kept. Copy the folder there first"
        )
    return Release(*found, root / RELEASES / place.name)


def releases(root: Path) -> list[Release]:
    """Every folder of releases/ that bears the name of one."""
    from components.handoff.verify_bundle import VERSION

    found = []
    for folder in sorted((root / RELEASES).glob("*")):
        told = pointer.named(folder.name)
        if told and VERSION.fullmatch(told[1]) and (folder.is_dir() or folder.is_symlink()):
            found.append(Release(*told, folder))
    return found


# --- the rest ---


def _settings(root: Path) -> Promote:
    from pipelines import operations

    return operations.section(root, operations.Promote)


def _public(key: Path | None) -> Ed25519PublicKey:
    """The key that was named, or this user's own.

    Raises:
        InputError: it is not there.
    """
    own = bundles.own_keys() / "release.pub.pem"
    if key is None and not own.is_file():
        raise InputError(
            f"{own} is not there, by which a release's signature is checked. `python -m pipelines keygen` makes your "
            "own pair, with which `release` signs. One that somebody else signed is checked with --key PUBLIC.pem"
        )
    return bundles.public_key(key)


def _staged(root: Path, environment: str, entry: Entry) -> str:
    """GTO's stage in git, for others to see; that it cannot be told undoes nothing."""
    from pipelines import release

    try:
        return f"  {release.assign(root, entry.name, environment, entry.version)}"
    except InputError as error:
        return f"  not told in git: {error}. The next promotion does it, or this one again"


def _notice(root: Path, event: Any, text: str, run: str) -> None:
    from pipelines.notices import notice

    notice(root, event, text, run)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
