"""A process that dies with the one that started it, however that one ends. Linux; elsewhere it lives on."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading

_PARENT_DEATH_SIGNAL = 1


def to(parent: int) -> None:
    """Die with `parent`, the process that started this one. To be called first, in a new process.

    By SIGKILL: a library's handler may put off any other signal for as long as it computes, and there is nothing to put
    in order, as files appear whole or not at all. The kernel ties to the thread that started us, so that one must stay.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def to_farther(ancestor: int) -> None:
    """Die with a process that is not the direct parent, as where a shell stands between; at once if it is gone."""
    if sys.platform != "linux":
        return
    try:
        handle = os.pidfd_open(ancestor)
    except ProcessLookupError:
        os._exit(1)

    def watch() -> None:
        select.select([handle], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name=f"dies with {ancestor}", daemon=True).start()
