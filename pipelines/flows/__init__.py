"""The Prefect flows; the only importers of Prefect.

train.py runs the line; monitor.py, promote.py and backtest.py are the others. What they do is done by the modules of
the same names above this folder, which know nothing of Prefect. server.py finds or starts a server, serve.py keeps
the deployments of infra/prefect/prefect.yaml on this machine.
"""

from __future__ import annotations

import os

# Before Prefect is imported: no calls home.
os.environ.update({"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | dict(os.environ))
