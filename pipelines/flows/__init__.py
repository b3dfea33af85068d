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

# Before Prefect is imported: no calls home.
os.environ.update({"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | dict(os.environ))


def _tie() -> None:
    """A flow run that serve started ends when serve is gone, however that went (kill -9): nobody else would end it."""
    parent = os.getppid()
    if os.environ.get("GRAFTLINE_SERVED") != str(parent):
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)  # for the stages to end; what cannot be told to a server that is gone too is not waited for
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="tie", daemon=True).start()


_tie()
