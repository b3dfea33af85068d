"""Random sequences of release, promote, rollback, corrupt, delete, kill, prune and two at once, on small real releases.

What must hold after every step: the pointer names a bundle that was whole, blessed and signed by the right key when
it went live, and that prune has not removed; nothing that was done is lost; a rollback takes less than two seconds. CI
runs 40 sequences, `-m slow` runs 500.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import promotable
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from components.contracts import InputError, Refused
from components.lineage import hash_file
from pipelines import operations, pointer
from pipelines.promote import live, promote, rollback
from pipelines.prune import prune

ENVIRONMENTS = ("production", "staging")
KEPT = 2
GOOD = ("good", "better")
KINDS = (*GOOD, "worse", "unblessed", "foreign", "unsigned")
WRITES = ("os.rename", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.fsync")


@pytest.fixture(autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are read once; the user has a key; nobody named a Prefect server."""
    config = tmp_path_factory.mktemp("config")
    promotable.own_key(config)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    monkeypatch.setenv("PREFECT_HOME", str(config))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    place = promotable.project(tmp_path_factory.mktemp("settings") / "x", git=False)
    promotable.set_operation(place, "keep_releases: 10", f"keep_releases: {KEPT}")
    promotable.set_operation(place, "on: [crashed, fault, refused, drift, promoted, rolled_back]", "on: []")
    POOL.append(tmp_path_factory.mktemp("pool"))
    told = operations.read(place)
    monkeypatch.setattr(operations, "read", lambda root: told)


POOL: list[Path] = []
"""Where one release of each kind and version lies, to be copied."""


def release(root: Path, version: str, kind: str) -> None:
    pool = POOL[-1] / kind
    told = promotable.evaluation({"better": 0.96, "worse": 0.5}.get(kind, 0.95))
    if kind == "unblessed":
        told["verdicts"].pop()
    if not (pool / "releases" / f"net-{version}").exists():
        pool.mkdir(exist_ok=True)
        folder = promotable.release(pool, version, key=int(kind == "foreign"), told=told)
        if kind == "unsigned":
            (folder / "attestation.dsse.json").unlink()
    shutil.copytree(pool / "releases" / f"net-{version}", root / "releases" / f"net-{version}")


def in_child(act: Callable[[], Any], kill_at: int = 0) -> int:
    """Do it in a fork, which is killed outright before its k-th change of a file; its process number. It takes its time
    between what it read of the pointer and what it writes, so that two of them meet there."""
    child = os.fork()
    if child:
        return child
    try:
        write = pointer.write
        pointer.write = lambda *given: (time.sleep(0.02), write(*given))[1]  # type: ignore[func-returns-value]
        count = 0

        def watch(event: str, args: Any) -> None:
            nonlocal count
            written = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if event in WRITES or written:
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sync = os.fsync
        os.fsync = lambda handle: (watch("os.fsync", ()), sync(handle))[1]  # no audit event tells of it
        sys.addaudithook(watch)
        act()
    except (InputError, Refused):
        os._exit(3)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    finally:
        os._exit(0)


def asked(act: Callable[[], Any]) -> str:
    """Why it was refused; empty: it was done."""
    try:
        act()
    except (InputError, Refused) as error:
        return str(error)
    return ""


def ended(child: int) -> int:
    """Its exit code; negative: killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Promotions(RuleBasedStateMachine):
    """The project, and what is known of it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="promotion-"))
        self.root = promotable.project(self.place / "p", git=False)
        self.kinds: dict[str, str] = {}
        self.harmed: set[str] = set()
        self.pruned: set[str] = set()
        self.slowest = 0.0

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    # --- what is done ---

    @initialize()
    def begin(self) -> None:
        """Three releases, two of which went live one after the other."""
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            self.release("good")
            if version != "1.2.0":
                promote(self.root, version, "production", None, "")

    @rule(kind=st.sampled_from(KINDS))
    @precondition(lambda self: len(self.kinds) < 8)
    def release(self, kind: str) -> None:
        version = f"1.{len(self.kinds)}.0"
        release(self.root, version, kind)
        self.kinds[version] = kind

    @rule(data=st.data(), environment=st.sampled_from(ENVIRONMENTS), older=st.booleans())
    def promote(self, data: st.DataObject, environment: str, older: bool) -> None:
        version = data.draw(st.sampled_from(list(self.kinds)))
        self.asked_to_promote(version, environment, older)

    @rule(kind=st.sampled_from(KINDS), environment=st.sampled_from(ENVIRONMENTS))
    @precondition(lambda self: len(self.kinds) < 8)
    def release_and_promote(self, kind: str, environment: str) -> None:
        self.release(kind)
        self.asked_to_promote(list(self.kinds)[-1], environment, False)

    def asked_to_promote(self, version: str, environment: str, older: bool) -> None:
        before = self.read(environment)
        may = self.sound(version) and self.comparable(version, before, older)
        refused = asked(lambda: promote(self.root, version, environment, None, "", older))
        assert may is not bool(refused), f"{version} ({self.kinds[version]}): {refused or 'it went live'}"
        if refused:
            assert self.read(environment) == before
        else:
            assert self.now(environment).live.version == version

    @rule(environment=st.sampled_from(ENVIRONMENTS))
    def rollback(self, environment: str) -> None:
        before = self.read(environment)
        may = before is not None and before.previous is not None and self.sound(before.previous.version)
        began = time.perf_counter()
        refused = asked(lambda: rollback(self.root, environment, None, ""))
        assert may is not bool(refused), refused
        if before is None or before.previous is None or refused:
            assert self.read(environment) == before
        else:
            assert self.now(environment).live.version == before.previous.version
            assert self.now(environment).older == before.older[1:]
        self.slowest = max(self.slowest, time.perf_counter() - began)
        assert self.slowest < 2

    @rule(data=st.data(), how=st.sampled_from(["byte", "file", "all"]))
    def harm(self, data: st.DataObject, how: str) -> None:
        version = data.draw(st.sampled_from(list(self.kinds)))
        folder = self.folder(version)
        if not folder.is_dir():
            return
        self.harmed.add(version)
        if how == "all":
            shutil.rmtree(folder)
        elif how == "file":
            (folder / "evaluation.json").unlink(missing_ok=True)
        else:
            (folder / "model.onnx").write_text("another")

    @rule()
    def prune(self) -> None:
        kept = self.within_reach()
        prune(self.root, dry_run=False)
        assert not list((self.root / "releases").glob(".pruned-*"))
        self.after_prune(kept)

    @rule(data=st.data(), kill_at=st.integers(1, 24))
    def killed(self, data: st.DataObject, kill_at: int) -> None:
        what = data.draw(st.sampled_from(["promote", "rollback", "prune"]))
        self.apart([(what, data.draw(st.sampled_from(list(self.kinds))), kill_at)])

    @rule(data=st.data())
    def two_at_once(self, data: st.DataObject) -> None:
        whats = st.sampled_from(["promote", "rollback", "prune"])
        versions = st.sampled_from(list(self.kinds))
        self.apart([(data.draw(whats), data.draw(versions), 0) for _ in range(2)])

    def apart(self, many: list[tuple[str, str, int]]) -> None:
        before, kept = self.read("production"), self.within_reach()
        acts: dict[str, Callable[[str], Any]] = {
            "promote": lambda version: promote(self.root, version, "production", None, "", True),
            "rollback": lambda version: rollback(self.root, "production", None, ""),
            "prune": lambda version: prune(self.root, dry_run=False),
        }
        children = [in_child(lambda w=what, v=version: acts[w](v), kill_at) for what, version, kill_at in many]
        codes = [ended(child) for child in children]
        assert all(code in (0, 3, -signal.SIGKILL) for code in codes), codes
        after = self.read("production")
        steps = len(after.history) - (len(before.history) if before else 0) if after else 0
        assert 0 <= steps <= len(many), "each leaves one change, or none"
        assert after == before or steps
        self.after_prune(kept if all(what == "prune" for what, _, _ in many) else set())

    # --- what must hold ---

    @invariant()
    def what_is_live_was_sound(self) -> None:
        for environment in ENVIRONMENTS:
            now = self.read(environment)
            if now is None:
                assert live(self.root, environment) is None
                continue
            version = now.live.version
            assert self.kinds[version] in (*GOOD, "worse"), f"{version} must never be live"
            assert now.live.sha256 == hash_file(self.made(version) / "attestation.dsse.json")
            told = [one["version"] for one in now.history]
            assert told[0] == version
            assert [one["from"] for one in now.history] == [*told[1:], ""], "no change was lost"
            if version in self.harmed:
                with pytest.raises(Refused):
                    live(self.root, environment, full=True)
            else:
                found = live(self.root, environment, full=True)
                assert found is not None
                assert found.folder == self.folder(version)
                link = self.root / "deployed" / environment
                assert link.resolve() == found.folder.resolve()

    @invariant()
    def what_can_be_reached_is_there(self) -> None:
        for version in self.within_reach() - self.harmed:
            assert self.folder(version).is_dir(), f"{version} was removed"

    # --- what is known ---

    def folder(self, version: str) -> Path:
        return self.root / "releases" / f"net-{version}"

    def made(self, version: str) -> Path:
        return POOL[-1] / self.kinds[version] / "releases" / f"net-{version}"

    def read(self, environment: str) -> pointer.Pointer | None:
        return pointer.read(self.root, environment)

    def now(self, environment: str) -> pointer.Pointer:
        found = self.read(environment)
        assert found is not None
        return found

    def sound(self, version: str) -> bool:
        there = self.folder(version).is_dir() and version not in self.harmed
        return there and self.kinds[version] in (*GOOD, "worse")

    def comparable(self, version: str, before: pointer.Pointer | None, older: bool) -> bool:
        """Whether what is live lets it pass."""
        if before is None or before.live.version == version:
            return True
        accuracies = {"better": 0.96, "worse": 0.5}
        new, old = (accuracies.get(self.kinds[one], 0.95) for one in (version, before.live.version))
        newer = int(version.split(".")[1]) > int(before.live.version.split(".")[1])
        return (newer or older) and self.sound(before.live.version) and new >= old - 0.0100001

    def within_reach(self) -> set[str]:
        """Versions that prune must leave."""
        found = set()
        for environment in ENVIRONMENTS:
            now = self.read(environment)
            if now is not None:
                found |= {one.version for one in (now.live, *now.older[:KEPT])}
        return found

    def after_prune(self, kept: set[str]) -> None:
        for version in kept - self.harmed:
            assert self.folder(version).is_dir()


def _run(num: int, steps: int) -> None:
    run_state_machine_as_test(
        Promotions,
        settings=settings(
            max_examples=num, stateful_step_count=steps, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],  # to shrink takes longer than to read
        ),
    )  # fmt: skip


def test_the_pointer_names_what_was_verified_whatever_happens() -> None:
    _run(40, 10)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_sequences() -> None:
    _run(500, 20)
