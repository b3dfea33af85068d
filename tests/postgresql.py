"""A real PostgreSQL of a test's own, on this machine only; it runs as another user where the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder of the newest server's programs, as Debian's packages lay them; None: there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


def _user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root; None: we are not."""
    if os.getuid() != 0:
        return None
    names = {one.pw_name: one for one in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


@contextmanager
def running(port: int) -> Iterator[str]:
    """Yields `user@host:port/database`. When the block ends, server and data are gone."""
    bin_, user = programs(), _user()
    assert bin_ is not None
    place = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if user:
        os.chown(place, user.pw_uid, user.pw_gid)

    def call(*command: str) -> None:
        ids = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        done = subprocess.run(
            command,
            cwd=place,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            **ids,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    data, log = str(place / "data"), str(place / "log")
    try:
        call(
            str(bin_ / "initdb"),
            "--pgdata",
            data,
            "--username",
            "prefect",
            "--auth",
            "trust",
            "--no-sync",
            "--no-instructions",
        )
        options = f"-h 127.0.0.1 -p {port} -k {place} -F"
        # pg_ctl's own output would be inherited by the server, and reading it would never end.
        call(str(bin_ / "pg_ctl"), "--pgdata", data, "--log", log, "--options", options, "--wait", "--silent", "start")
        try:
            yield f"prefect@127.0.0.1:{port}/postgres"
        finally:
            call(str(bin_ / "pg_ctl"), "--pgdata", data, "--mode", "immediate", "--silent", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)
