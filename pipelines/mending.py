"""What a killed DVC leaves, mended before the next run: an unreadable rwlock, a dvc.lock that was cut off.

Only inside `dvc_cli.turn`, where no other run works here.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path

from components.contracts import write_atomic
from pipelines import processes, staleness


def say(text: str) -> None:
    """One line to whoever watches."""
    print(text, file=sys.stderr, flush=True)


def living_dvc(root: Path) -> list[int]:
    """Live processes that hold DVC's rwlock. If there is none, what a killed one left in it is removed.

    DVC removes entries of processes that are gone by itself; it refuses an empty file, and for ever waits for
    one that is a zombie (as in a container whose first process does not collect its children) or whose number
    another process bears by now.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return []
    with path.with_name("rwlock.lock").open("a+") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # DVC writes the file in place, under this same lock
        try:
            held = json.loads(path.read_text("utf-8"))
            infos = [*held.get("write", {}).values(), *(i for many in held.get("read", {}).values() for i in many)]
            living = sorted({int(i["pid"]) for i in infos if _is_dvc(int(i["pid"]))} - {os.getpid()})
        except FileNotFoundError:
            return []
        except (ValueError, AttributeError, KeyError, TypeError):
            path.unlink()
            say("Mended: .dvc/tmp/rwlock was unreadable, as an interrupted DVC leaves it; removed.")
            return []
        if infos and not living:
            path.unlink()
    return living


def _is_dvc(pid: int) -> bool:
    try:
        return b"dvc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def heal(root: Path) -> None:
    """Bring back a dvc.lock that a killed DVC left empty or cut off: from git's last commit, or none."""
    path = root / "dvc.lock"
    if not path.exists() or staleness.locked_stages(path.read_bytes()) is not None:
        return
    code, committed, _ = processes.quietly(["git", "show", "HEAD:./dvc.lock"], root)
    usable = code == 0 and staleness.locked_stages(committed) is not None
    if usable:
        write_atomic(path, committed)
    else:
        path.unlink()
    how = "restored from git's last commit" if usable else "removed, as git has none"
    say(f"Mended: dvc.lock was cut off, as an interrupted DVC leaves it; {how}.")
    say("  What ran since then comes back from DVC's cache without running again.")
