"""`python -m pipelines predict`: a bundle that does not hold is not run; one that holds is passed through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import made_by_hand
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.contracts import InputError, Refused
from components.handoff import signing
from pipelines.predict import predict

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made_by_hand.bundle(tmp_path / "tiny")


def _line(folder: Path, *words: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines", "predict", *map(str, words)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
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
