"""Notices through Prefect's notification blocks (slack-webhook/team), whose secrets stay in Prefect."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect.blocks import notifications  # noqa: F401  Prefect finds its own blocks by their names once this is loaded
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.flows import served

SECONDS = 10.0
"""So long all blocks together may take."""


def send(root: Path, blocks: Iterable[str], subject: str, text: str, seconds: float = SECONDS) -> list[str]:
    """Notify by each block; which did not take it, as `block: kind of error`. Never raises.

    What an error says is not told: it may hold the address that is the secret.
    """
    url = PREFECT_API_URL.value() or served.url(root)
    if not url:  # Prefect would start a server of its own, which does not know the blocks
        return [f"{block}: no Prefect server is named by PREFECT_API_URL" for block in blocks]
    deadline, names, failed = time.monotonic() + seconds, list(blocks), []
    outcomes: dict[str, str] = {}
    threads = {
        name: threading.Thread(target=_one, args=(name, url, subject, text, outcomes), daemon=True) for name in names
    }
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        outcome = outcomes.get(name, f"no answer within {seconds:g} s")
        if outcome:
            failed.append(f"{name}: {outcome}")
    return failed


def _one(name: str, url: str, subject: str, text: str, outcomes: dict[str, str]) -> None:
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            asyncio.run(_notify(name, subject, text))
        outcomes[name] = ""
    except Exception as error:
        outcomes[name] = type(error).__name__


async def _notify(name: str, subject: str, text: str) -> None:
    loading: Any = Block.aload(name)
    block = await loading
    notify = getattr(block, "notify", None)
    if notify is None:
        raise TypeError(f"{name} is no notification block")
    with block.raise_on_failure():
        done = notify(text, subject)
        if inspect.isawaitable(done):
            await done
