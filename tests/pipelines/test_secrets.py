"""Secrets that lie in the environment and in DVC's own settings are looked for in everything that runs leave behind.

A search that finds nothing may be a search that cannot find: a stage that prints its environment, and one that writes
it down, are found by the same search.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import miniature
import pytest

REPOSITORY = Path(__file__).parent.parent.parent

PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED5Q7ZXW3",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+Zk81vQm2/Lr0TtYp",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountKey=planted-azure-Qv7mJx2==",
    "GITHUB_TOKEN": "ghp_planted0Hh3Kd92LmXv",
    "GITLAB_TOKEN": "glpat-planted-8sTq4Wn1",
    "GOOGLE_CREDENTIALS_JSON": "planted-google-Xc5bRt6",
    "HF_TOKEN": "hf_planted7YuPq3Vb",
    "PREFECT_API_AUTH_STRING": "planted-user:planted-prefect-Mn4Zt",
    "PREFECT_API_KEY": "pnu_planted2KjHs9Df",
    "PREFECT_SERVER_API_AUTH_STRING": "planted-user:planted-prefect-Mn4Zt",
    "PREFECT_SERVER_DATABASE_PASSWORD": "planted-database-Wq8Lr",
    "RELEASE_KEY": "planted-release-Vb6Nm",
}
IN_DVC = "planted-remote-Gf3Hd9"
"""The password of a DVC remote, in .dvc/config.local."""
OWN = {".dvc/config.local"}
"""Where it was put."""


def forms(secret: str) -> set[bytes]:
    """A secret as it may stand somewhere: plain, in JSON, in an address, in base64 at any offset."""
    raw = secret.encode()
    found = {raw, json.dumps(secret)[1:-1].encode(), urllib.parse.quote(secret, safe="").encode()}
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + raw)
        found.add(coded[(0, 2, 3)[offset] : -4])  # without what its neighbours have a part in
    return found


NEEDLES = {name: forms(secret) for name, secret in {**PLANTED, "a DVC remote": IN_DVC}.items()}


def contents(name: str, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """A file, and what is packed inside."""
    yield name, raw
    try:
        if raw[:2] == b"\x1f\x8b":
            yield from contents(f"{name} unzipped", gzip.decompress(raw))
        elif raw[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                for one in archive.namelist():
                    yield from contents(f"{name}: {one}", archive.read(one))
        elif raw[:1] == b"\x78":  # git's objects
            yield f"{name} unpacked", zlib.decompress(raw)
        elif raw[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
                for member in archive:
                    if (handle := archive.extractfile(member)) is not None:
                        yield from contents(f"{name}: {member.name}", handle.read())
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError):
        return  # it only looked so; its bytes were given


def leaks(*texts: tuple[str, bytes], folders: tuple[Path, ...] = ()) -> set[str]:
    """Where which secret stands."""
    found: set[str] = set()
    for folder in folders:
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            found |= {name for n in NEEDLES for needle in NEEDLES[n] if needle in name.encode()}
            if path.is_file() and not path.is_symlink() and name not in OWN:
                found |= _in(*contents(name, path.read_bytes()))
    return found | _in(*texts)


def _in(*texts: tuple[str, bytes]) -> set[str]:
    return {f"{n} in {where}" for where, raw in texts for n, known in NEEDLES.items() if any(k in raw for k in known)}


def plant(root: Path) -> None:
    settings = (
        "[core]\n    remote = store\n['remote \"store\"']\n    url = http://127.0.0.1:9/store\n    auth = basic\n"
    )
    (root / ".dvc" / "config.local").write_text(f"{settings}    user = planted\n    password = {IN_DVC}\n")


def run(root: Path, *command: str, **more: str) -> tuple[int, tuple[tuple[str, bytes], ...]]:
    """A command with the secrets in its environment; what it printed."""
    environment = {**miniature.environment(), "HF_HUB_OFFLINE": "1", **PLANTED, **more}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=120, check=False)
    return done.returncode, (("stdout", done.stdout), ("stderr", done.stderr))


def line(root: Path, *words: str, **more: str) -> tuple[int, tuple[tuple[str, bytes], ...]]:
    return run(root, sys.executable, "-m", "pipelines", *words, **more)


PRINTS = "    print('its environment:', dict(__import__('os').environ), file=__import__('sys').stderr)\n"
WRITES = "    job.report('environment.json').write_text(__import__('json').dumps(dict(__import__('os').environ)))\n"


def tell_tale(root: Path, what: str) -> None:
    """The stage `ingest` also does that."""
    path = root / "components" / "ingest" / "stage.py"
    text = path.read_text()
    path.write_text(text.replace("def run(params, job):\n", f"def run(params, job):\n{what}"))


@pytest.mark.parametrize("form", ["{}", "--header 'Basic {64}'", '{{"token": {json}}}', "https://{url}@host/"])
def test_the_search_finds_every_form_of_every_secret(form: str) -> None:
    for name, secret in {**PLANTED, "a DVC remote": IN_DVC}.items():
        coded = base64.b64encode(f"user:{secret}".encode()).decode()
        quoted = urllib.parse.quote(secret, safe="")
        text = form.replace("{64}", coded).replace("{json}", json.dumps(secret)).replace("{url}", quoted)
        told = leaks(("here", text.replace("{}", secret).encode()))
        assert f"{name} in here" in told, text


def test_the_search_looks_into_archives_and_gits_objects(tmp_path: Path) -> None:
    secret = PLANTED["HF_TOKEN"].encode()
    (tmp_path / "object").write_bytes(zlib.compress(b"blob " + secret))
    (tmp_path / "log.gz").write_bytes(gzip.compress(secret))
    with tarfile.open(tmp_path / "bundle.tar", "w") as archive:
        member = tarfile.TarInfo("inside")
        member.size = len(secret)
        archive.addfile(member, io.BytesIO(secret))
    with zipfile.ZipFile(tmp_path / "weights.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inside", secret)
    told = leaks(folders=(tmp_path,))
    assert {one.split(" in ")[1].split(":")[0].split(" ")[0] for one in told} == {
        "object", "log.gz", "bundle.tar", "weights.zip",
    }  # fmt: skip


@pytest.mark.parametrize(("what", "where"), [(PRINTS, "stderr"), (WRITES, "reports/ingest/environment.json")])
def test_a_stage_that_tells_its_environment_is_found(new_project: Path, what: str, where: str) -> None:
    plant(new_project)
    tell_tale(new_project, what)
    _, printed = line(new_project, "repro", "ingest")
    told = leaks(*printed, folders=(new_project,))
    assert any(one.endswith(where) for one in told), told


def test_nothing_of_a_run_tells_a_secret_whether_it_ends_well_or_not(new_project: Path) -> None:
    plant(new_project)
    told = []
    for words, wanted in (
        (("check",), 0), (("repro",), 0), (("status",), 0), (("summary",), 0), (("runs", "--json"), 0),
    ):  # fmt: skip
        code, printed = line(new_project, *words)
        assert code == wanted, printed
        told += printed
    miniature.turn_knob(new_project, 'suffix: ".v1"', "suffix: fault")
    code, printed = line(new_project, "repro")
    assert code == 1
    assert (new_project / "reports" / "export" / "fault.txt").exists()
    assert leaks(*told, *printed, folders=(new_project,)) == set()
    assert list((new_project / ".graftline" / "runs").glob("*.json"))
    assert (new_project / "artifacts" / "ingest" / "lineage.json").exists()


def test_a_remote_that_does_not_answer_is_told_without_its_password(finished_project: Path) -> None:
    plant(finished_project)
    code, printed = run(finished_project, sys.executable, "-m", "dvc", "pull", "--verbose", "--allow-missing")
    assert leaks(*printed, folders=(finished_project,)) == set()
    code, printed = run(finished_project, sys.executable, "-m", "dvc", "push")
    assert code != 0
    assert leaks(*printed, folders=(finished_project,)) == set()


def test_the_comment_of_ci_tells_no_secret(finished_project: Path) -> None:
    plant(finished_project)
    code, printed = line(finished_project, "comment", "--out", "comment.md")
    assert code == 0, printed
    assert leaks(*printed, folders=(finished_project,)) == set()


def test_prefect_is_told_no_secret(prefect_server: None, new_project: Path, tmp_path: Path) -> None:
    """Its database holds logs, states, artifacts, events. What a stage prints gets there, so the search can find."""
    home = tmp_path / "prefect-home"
    plant(new_project)
    miniature.turn_knob(new_project, 'suffix: ".v1"', "suffix: fault")
    tell_tale(new_project, "    print(__import__('os').environ['TOLD'], file=__import__('sys').stderr)\n")
    more = {"PREFECT_API_URL": _api(), "PREFECT_HOME": str(home), "TOLD": "told-on-purpose-5Tz8"}
    code, printed = line(new_project, "run", **more)
    assert code == 1, printed
    database = _database()
    everything = b"".join(raw for _, raw in database)
    assert b"told-on-purpose-5Tz8" in everything, "a stage's log does not reach Prefect"
    assert b"num_used" in everything, "artifacts do not reach Prefect"
    assert leaks(*printed, *database, folders=(new_project, home)) == set()


def _api() -> str:
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value())


def _database() -> list[tuple[str, bytes]]:
    """Every row of every table of the server's database, as text."""
    from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

    url = PREFECT_SERVER_DATABASE_CONNECTION_URL.value()
    text = url.get_secret_value() if hasattr(url, "get_secret_value") else str(url)
    place = text.partition("///")[2]
    assert os.path.isfile(place), text
    told = []
    with sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=30) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            rows = database.execute(f'select * from "{table}"')
            told.append((f"Prefect's table {table}", repr(list(rows)).encode("utf-8", "surrogateescape")))
    database.close()
    return told
