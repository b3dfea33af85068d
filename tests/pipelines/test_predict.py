"""`python -m pipelines predict`: a bundle that does not hold is not run; one that holds is passed through."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import made_by_hand
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.contracts import InputError, Refused
from components.handoff import signing
from pipelines import bundles
from pipelines.predict import predict

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made_by_hand.bundle(tmp_path / "tiny")


def _line(folder: Path, *words: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines", "predict", *map(str, words)]
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder),
    }  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, check=False, timeout=60
    )


def test_its_output_and_exit_code_come_through(bundle: Path, tmp_path: Path) -> None:
    done = _line(tmp_path, bundle, "a.png", "b.png", "--top", "3", "--json", "--unsigned")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "labelled a.png b.png --top 3 --json\n"
    assert done.stderr.startswith("verified: tiny: ")
    assert "this is said aside" in done.stderr
    assert (tmp_path / "ran.txt").exists()  # in the caller's folder, so that FILE is what he means
    assert _line(tmp_path, "--unsigned", bundle, "bad").returncode == 2


@pytest.mark.parametrize("change", ["bytes", "more", "less", "sums"])
def test_a_bundle_that_does_not_hold_is_not_run(bundle: Path, tmp_path: Path, change: str) -> None:
    if change == "bytes":
        (bundle / "predict.py").write_text(made_by_hand.PREDICT + "# and more\n")
    elif change == "more":
        (bundle / "preprocessing_extra.py").write_text("")
    elif change == "less":
        (bundle / "metrics.json").unlink()
    else:
        (bundle / "SHA256SUMS").write_text("")
    done = _line(tmp_path, bundle, "a.png", "--unsigned")
    assert done.returncode == 3
    assert "does not hold what it promises, so it is not run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran.txt").exists()
    assert done.stdout == ""


def test_nothing_is_run_without_a_word_on_the_signature(bundle: Path, tmp_path: Path) -> None:
    done = _line(tmp_path, bundle, "a.png")
    assert done.returncode == 2
    assert "--key PUBLIC.pem" in done.stderr
    assert not (tmp_path / "ran.txt").exists()


def test_the_users_own_key_is_taken_as_verify_takes_it(bundle: Path, tmp_path: Path) -> None:
    key, folder = Ed25519PrivateKey.generate(), tmp_path / "tiny-1.0.0"
    signing.seal(bundle, folder, key, "tiny", "1.0.0")
    (tmp_path / "config/graftline").mkdir(parents=True)
    _public(key, tmp_path / "config/graftline/release.pub.pem")
    assert _line(tmp_path, folder, "a.png").stdout == "labelled a.png\n"
    done = _line(tmp_path, bundle, "a.png")
    assert (done.returncode, done.stdout) == (3, "")
    assert "is checked with --unsigned" in done.stderr


def test_a_commit_and_a_tag_run_from_the_cache(tmp_path: Path) -> None:
    project = made_by_hand.Project(tmp_path / "project")
    made = made_by_hand.bundle(tmp_path / "tiny")
    (made / "preprocessing.py").write_text("NAME = 'beside it'\n")
    (made / "predict.py").write_text("import preprocessing, sys\nprint(preprocessing.NAME, *sys.argv[1:])\n")
    made_by_hand.sums(made)
    commit = project.commit(project.run(made, {"a": "x"}), "tiny@v1.0.0")
    for name in (commit, "HEAD", "tiny@v1.0.0"):
        done = _line(project.root, "--unsigned", name, "a.png")
        assert (done.returncode, done.stdout) == (0, "beside it a.png\n"), done.stderr
    done = _line(project.root, "--unsigned", "x" * 300, "a.png")
    assert done.returncode == 2
    assert "so long a name" in done.stderr


def test_a_bundle_of_links_into_a_cache_is_run_as_its_files(bundle: Path, tmp_path: Path) -> None:
    (bundle / "preprocessing.py").write_text("NAME = 'beside it'\n")
    (bundle / "predict.py").write_text("import preprocessing\nprint(preprocessing.NAME)\n")
    made_by_hand.sums(bundle)
    (tmp_path / "cache").mkdir()
    for number, path in enumerate(sorted(bundle.iterdir())):
        path.rename(tmp_path / "cache" / str(number))
        path.symlink_to(tmp_path / "cache" / str(number))
    assert _line(tmp_path, bundle, "a.png", "--unsigned").stdout == "beside it\n"


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE, folder: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type = size, 0o755 if folder else 0o644, tarfile.DIRTYPE if folder else kind
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


@pytest.mark.parametrize("odd", ["sparse", "bomb", "hard link", "outside", "absolute", "under a file", "long", "twice"])
def test_an_odd_tar_is_refused_and_nothing_of_it_is_written(
    odd: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the .tar of what is not released, whose sums anybody can write."""
    tar, aside = tmp_path / "tiny.tar", tmp_path / "aside"
    aside.mkdir()
    name = {
        "outside": "../x", "absolute": "/x", "under a file": "model.onnx/y", "twice": "model.onnx",
    }.get(odd, "x")  # fmt: skip
    text = (bundle / "SHA256SUMS").read_text() + f"{made_by_hand.digest('')}  {name}\n" * (odd != "twice")
    (bundle / "SHA256SUMS").write_text(text)
    signing.write_tar(bundle, "tiny", tar)
    content = tar.read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 512)
    kind = {"sparse": b"S", "hard link": b"1"}.get(odd, b"0")
    more = _header(f"tiny/{name}", 1 << 32 if odd == "bomb" else 0, kind)
    if odd == "long":
        more = tarfile.TarInfo(f"tiny/{'x' * 300}").tobuf(tarfile.PAX_FORMAT)
    content += more
    tar.write_bytes(content + bytes(-(len(content) + 1024) % 10240 + 1024))
    monkeypatch.setattr("tempfile.tempdir", str(aside))
    with pytest.raises(Refused, match="so it is not run"):
        predict(tmp_path, str(tar), ["--unsigned", "a.png"])
    with (
        pytest.raises(InputError, match=r"tiny\.tar is not the \.tar of a release"),
        bundles.opened(tmp_path, str(tar)),
    ):
        pass
    assert not list(aside.iterdir())


def test_what_is_run_is_what_was_checked(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tar is another one once it was looked at."""
    tar = tmp_path / "tiny.tar"
    signing.write_tar(bundle, "tiny", tar)
    checked = bundles.must_hold

    def exchanged(*words: Any, **more: Any) -> str:
        told = checked(*words, **more)
        (bundle / "predict.py").write_text("open('ran.txt', 'w')")
        signing.write_tar(bundle, "tiny", tar)
        return told

    monkeypatch.setattr(bundles, "must_hold", exchanged)
    with pytest.raises(InputError, match="other bytes than SHA256SUMS says"):
        predict(tmp_path, str(tar), ["--unsigned", "a.png"])
    assert not (tmp_path / "ran.txt").exists()


def _public(key: Ed25519PrivateKey, place: Path) -> Path:
    place.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return place


def _key(folder: Path) -> Path:
    return _public(Ed25519PrivateKey.generate(), folder / "public.pem")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_release_runs_with_the_key_of_whom_one_trusts_and_no_other(bundle: Path, tmp_path: Path, kind: str) -> None:
    key, folder = Ed25519PrivateKey.generate(), tmp_path / "tiny-1.0.0"
    signing.seal(bundle, folder, key, "tiny", "1.0.0")
    signing.write_tar(folder, folder.name, tmp_path / "tiny-1.0.0.tar")
    place = folder if kind == "folder" else tmp_path / "tiny-1.0.0.tar"
    other = _key(tmp_path)
    done = _line(tmp_path, place, "a.png", "--key", other)
    assert (done.returncode, done.stdout) == (3, "")
    assert "signed by another key" in done.stderr
    done = _line(tmp_path, place, "a.png", "--unsigned")
    assert done.returncode == 3  # signed: whoever has no key has not checked it
    done = _line(tmp_path, place, "a.png", "--key", _public(key, tmp_path / "own.pem"))
    assert (done.returncode, done.stdout) == (0, "labelled a.png\n"), done.stderr


def test_an_unsigned_bundle_does_not_pass_for_a_signed_one(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not signed"):
        predict(tmp_path, str(bundle), ["--key", str(_key(tmp_path)), "a.png"])
    with pytest.raises(InputError, match="not a public key"):
        predict(tmp_path, str(bundle), ["--key", str(bundle / "metrics.json"), "a.png"])
    with pytest.raises(InputError, match="name at least one file"):
        predict(tmp_path, str(bundle), ["--unsigned"])


def test_standard_input_reaches_it(tmp_path: Path) -> None:
    made = made_by_hand.bundle(tmp_path / "tiny")
    (made / "predict.py").write_text("import sys\nprint(sys.stdin.read().upper(), end='')\n")
    made_by_hand.sums(made)
    assert _line(tmp_path, made, "--lines", "-", "--unsigned", given="one\ntwo\n").stdout == "ONE\nTWO\n"


def test_the_bundle_stays_as_it_is(bundle: Path, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in bundle.iterdir()}
    _line(tmp_path, bundle, "a.png", "--unsigned")
    assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before
