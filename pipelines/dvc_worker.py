"""`python -P dvc_worker.py SOCKET`: one `dvc repro --keep-going` that tells what it does and waits for a nod.

DVC itself walks the graph, decides and records; so what it leaves is what a plain `dvc repro` leaves, and it is
loaded once for all stages. Before each stage it says which one and what changed, and goes on when a line comes
back; afterwards it says how that went. followed.py is the other end. A stage does not inherit the socket. Where a plain
`dvc` works meanwhile, it waits for that, as DVC itself would not.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any


def patiently(ask: Callable[[], Any]) -> Any:
    """What DVC answers, once no other DVC has the files that it is about."""
    from dvc.lock import LockError

    told = False
    while True:
        try:
            return ask()
        except LockError as error:
            if not told:
                print(f"Waiting for another `dvc`: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.5)


def main() -> int:
    """Returns DVC's exit code."""
    ours = socket.socket(fileno=int(sys.argv[1]))
    ours.set_inheritable(False)
    nods = ours.makefile("rb")

    def say(**words: Any) -> None:
        ours.sendall((json.dumps(words) + "\n").encode())

    from dvc.cli import main as dvc
    from dvc.repo import Repo
    from dvc.repo.reproduce import _reproduce_stage

    def reproduce(stage: Any, **options: Any) -> Any:
        changed = patiently(stage.status)
        say(stage=stage.addressing, changed=next(iter(changed.values()), []))
        if not nods.readline():
            sys.exit(1)  # nobody is there any more
        try:
            made = patiently(lambda: _reproduce_stage(stage, **options)) if changed else None
        except Exception as error:
            say(ended=stage.addressing, why=str(error) or type(error).__name__)
            raise
        say(ended=stage.addressing)
        return made

    plain = Repo.reproduce
    Repo.reproduce = lambda repo, *words, **options: plain(repo, *words, repro_fn=reproduce, **options)
    code: int = dvc(["--wait-for-lock", "repro", "--keep-going"])
    return code


if __name__ == "__main__":
    sys.exit(main())
