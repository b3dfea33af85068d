"""The Prefect flows; the only importers of Prefect.

train.py runs the line; monitor.py, promote.py and backtest.py are the others. What they do is done by the modules of
the same names above this folder, which know nothing of Prefect. server.py finds or starts a server, serve.py keeps
the deployments of infra/prefect/prefect.yaml on this machine.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from components.contracts import InputError

# Before Prefect is imported: no calls home.
os.environ.update({"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | dict(os.environ))


_ROOT = os.environ.pop("GRAFTLINE_SERVED_ROOT", "")
"""The project that serve keeps, if it started this process."""


def project(root: str) -> Path:
    """The folder that a flow run is to work in.

    Raises:
        InputError: serve started this run and keeps another project: whoever reaches its server could otherwise have
            any folder's code run.
    """
    folder = Path(root).resolve()
    if _ROOT and folder != Path(_ROOT):
        raise InputError(f"root: {root} is not the project that serve keeps here, {_ROOT}. Leave `root` as it is")
    return folder


def _tie() -> None:
    """A flow run that serve started ends when serve is gone, however that went (kill -9): nobody else would end it.

    The variable is serve's number. Where that is no longer the parent's, serve went before this module was loaded. It
    is taken away, as what this process starts is not serve's child.
    """
    parent = os.environ.pop("GRAFTLINE_SERVED", "")
    if not parent:
        return

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)  # for the stages to end; what cannot be told to a server that is gone too is not waited for
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="tie", daemon=True).start()


_tie()
