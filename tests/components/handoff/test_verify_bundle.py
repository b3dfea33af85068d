"""The verify.py of a bundle: 2,000 seeded changes of a signed one are refused, 200 unchanged ones pass."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import signed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.contracts import InputError
from components.handoff import signing, verify_bundle

ENVELOPE, SUMS = verify_bundle.ENVELOPE, verify_bundle.SUMS
SCRIPT = Path(verify_bundle.__file__)
PUBLIC = signed.private_key().public_key()

Change = Callable[[Path, random.Random], "Path | None"]
"""Changes the bundle in that folder (beside which its tar lies); where it returns a place, that one is checked."""


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _one(folder: Path, rng: random.Random) -> Path:
    return rng.choice(_files(folder))


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def flip_a_bit(folder: Path, rng: random.Random) -> None:
    _flip(_one(folder, rng), rng)


def flip_a_bit_of_the_envelope(folder: Path, rng: random.Random) -> None:
    _flip(folder / ENVELOPE, rng)


def flip_a_bit_of_the_sums(folder: Path, rng: random.Random) -> None:
    _flip(folder / SUMS, rng)


def cut_off(folder: Path, rng: random.Random) -> None:
    path = _one(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def append(folder: Path, rng: random.Random) -> None:
    path = _one(folder, rng)
    path.write_bytes(path.read_bytes() + rng.choice([b"\n", b" ", b"\0", rng.randbytes(9)]))


def change_and_sum_up(folder: Path, rng: random.Random) -> None:
    _flip(folder / rng.choice(signed.FILES), rng)
    signed.sum_up(folder)


def remove(folder: Path, rng: random.Random) -> None:
    _one(folder, rng).unlink()


def remove_and_sum_up(folder: Path, rng: random.Random) -> None:
    (folder / rng.choice(signed.FILES)).unlink()
    signed.sum_up(folder)


def add(folder: Path, rng: random.Random) -> None:
    places = [p for p in folder.rglob("*") if p.is_dir()] + [folder]
    name = rng.choice([".DS_Store", ".gitignore", "Thumbs.db", "notes.txt", "__init__.py", "ü.txt", "a b", "-rf", "~"])
    _put(rng.choice(places) / name, rng.randbytes(rng.randrange(20)))


def add_and_sum_up(folder: Path, rng: random.Random) -> None:
    add(folder, rng)
    signed.sum_up(folder)
    (folder / SUMS).chmod(0o644)


def add_a_git_folder(folder: Path, rng: random.Random) -> None:
    _put(folder / rng.choice([".git/config", ".git/HEAD", "__pycache__/predict.pyc", ".hidden/x"]), b"x")


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o755)
    path.write_bytes(content)
    path.chmod(0o644)


def rename(folder: Path, rng: random.Random) -> None:
    path = _one(folder, rng)
    path.rename(
        path.with_name(rng.choice([f".{path.name}", f"{path.name}.bak", path.name.upper() + "_", f"{path.name} "]))
    )


def duplicate(folder: Path, rng: random.Random) -> None:
    path = _one(folder, rng)
    _put(path.with_name(rng.choice(["copy_", ".", "1"]) + path.name), path.read_bytes())


def case_twin(folder: Path, rng: random.Random) -> None:
    path = _one(folder, rng)
    _put(path.with_name(path.name.swapcase()), path.read_bytes())


def case_twin_of_a_folder(folder: Path, rng: random.Random) -> None:
    _put(folder / rng.choice(["Variants", "PROFILE", "Serving"]) / "x", b"")


def swap_two(folder: Path, rng: random.Random) -> None:
    one, other = rng.sample(_files(folder), 2)
    before = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(before)


def empty_folder(folder: Path, rng: random.Random) -> None:
    place = folder / rng.choice(["new", ".git", "variants/new", "serving/x"])
    place.mkdir()
    place.chmod(0o755)


def mode_of_a_file(folder: Path, rng: random.Random) -> None:
    _one(folder, rng).chmod(rng.choice([0o600, 0o755, 0o666, 0o444, 0o640, 0o4644, 0o777]))


def mode_of_a_folder(folder: Path, rng: random.Random) -> None:
    places = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    rng.choice(places).chmod(rng.choice([0o700, 0o777, 0o775, 0o1755]))


def symbolic_link(folder: Path, rng: random.Random) -> None:
    """In a file's place, to the same bytes."""
    path, aside = _one(folder, rng), folder.parent / "aside"
    path.rename(aside)
    path.symlink_to(aside)


def symbolic_link_more(folder: Path, rng: random.Random) -> None:
    (folder / "latest").symlink_to(rng.choice(["model.onnx", "nowhere", "/etc/hostname", ".."]))


def linked_folder(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(["variants", "profile", "serving"])
    path.rename(folder.parent / "aside")
    path.symlink_to(folder.parent / "aside")


def hard_link(folder: Path, rng: random.Random) -> None:
    os.link(_one(folder, rng), folder.parent / "aside")


def hard_link_inside(folder: Path, rng: random.Random) -> None:
    os.link(_one(folder, rng), folder / "again")


def pipe(folder: Path, rng: random.Random) -> None:
    place = rng.choice([folder / "pipe", folder / "labels.json"])
    place.unlink(missing_ok=True)
    os.mkfifo(place, 0o644)


def file_becomes_folder(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(signed.FILES)
    path.unlink()
    path.mkdir()
    path.chmod(0o755)


def _sign_again(folder: Path, key: int, name: str, version: str) -> None:
    (folder / ENVELOPE).unlink()
    hashes = {p.relative_to(folder).as_posix(): signing.hash_file(p) for p in _files(folder)}
    _put(folder / ENVELOPE, signing.envelope(signing.statement(hashes, name, version), signed.private_key(key)))


def other_key(folder: Path, rng: random.Random) -> None:
    _sign_again(folder, rng.randrange(1, 99), "net", "1.2.3")


def change_and_sign_with_another(folder: Path, rng: random.Random) -> None:
    change_and_sum_up(folder, rng)
    _sign_again(folder, 1, "net", "1.2.3")


def keyid_of_another(folder: Path, rng: random.Random) -> None:
    """Another's signature under the name of the right key."""
    other_key(folder, rng)
    told = json.loads((folder / ENVELOPE).read_bytes())
    told["signatures"][0]["keyid"] = verify_bundle.fingerprint(PUBLIC)
    (folder / ENVELOPE).write_bytes((json.dumps(told, sort_keys=True, separators=(",", ":")) + "\n").encode())


def signature_of_another_bundle(folder: Path, rng: random.Random) -> None:
    other = signed.release(folder.parent / "other", rng.randrange(1, 10**6))
    shutil.copyfile(other / ENVELOPE, folder / ENVELOPE)


def older_bundle_under_a_newer_name(folder: Path, rng: random.Random) -> Path:
    place = folder.with_name(
        rng.choice(["net-1.2.4", "net-2.0.0", "nets-1.2.3", "net-1.2.3-rc1", "Net-1.2.3", "bundle"])
    )
    return folder.rename(place)


def older_tar_under_a_newer_name(folder: Path, rng: random.Random) -> Path:
    tar = folder.with_name("net-1.2.3.tar")
    return tar.rename(
        tar.with_name(rng.choice(["net-1.2.4.tar", "net-10.0.0.tar", "other-1.2.3.tar", "net-1.2.3.zip"]))
    )


def not_signed(folder: Path, rng: random.Random) -> None:
    (folder / ENVELOPE).unlink()


def edited_envelope(folder: Path, rng: random.Random) -> None:
    path = folder / ENVELOPE
    told = json.loads(path.read_bytes())
    payload = json.loads(base64.b64decode(told["payload"]))
    kind = rng.randrange(8)
    if kind == 0:
        payload["predicate"]["version"] = "1.2.4"
    elif kind == 1:
        payload["subject"].pop(rng.randrange(len(payload["subject"])))
    elif kind == 2:
        told["payloadType"] = "application/json"
    elif kind == 3:
        told["signatures"].append(told["signatures"][0])
    elif kind == 4:
        told["more"] = rng.random()
    elif kind == 5:
        told["signatures"] = []
    elif kind == 6:
        told["signatures"][0]["sig"] = base64.b64encode(rng.randbytes(64)).decode()
    changed = kind in (0, 1)
    told["payload"] = base64.b64encode(json.dumps(payload).encode()).decode() if changed else told["payload"]
    path.write_text(json.dumps(told, indent=1 if kind == 7 else None))


def edited_sums(folder: Path, rng: random.Random) -> None:
    path = folder / SUMS
    lines = path.read_text().splitlines(keepends=True)
    kind = rng.randrange(5)
    if kind == 0:
        lines.pop(rng.randrange(len(lines)))
    elif kind == 1:
        lines.append(rng.choice(lines))
    elif kind == 2:
        lines.reverse()
    elif kind == 3:
        lines = [line.upper() for line in lines]
    else:
        lines = [line.replace("  ", " *") for line in lines]
    path.write_text("".join(lines))


def flip_a_bit_of_the_tar(folder: Path, rng: random.Random) -> Path:
    tar = folder.with_name("net-1.2.3.tar")
    _flip(tar, rng)
    return tar


def cut_off_the_tar(folder: Path, rng: random.Random) -> Path:
    tar = folder.with_name("net-1.2.3.tar")
    content = tar.read_bytes()
    kind = rng.randrange(3)
    if kind == 0:
        content = content[: rng.randrange(len(content))]
    elif kind == 1:
        content += rng.choice([b"\0", bytes(512), bytes(10240), b"more"])
    else:
        content = gzip.compress(content, mtime=0)
    tar.write_bytes(content)
    return tar


def rewritten_tar(folder: Path, rng: random.Random) -> Path:
    """By an ordinary tool: an owner, a time, another order, a link, an absolute name, one file twice."""
    tar, top, kind = folder.with_name("net-1.2.3.tar"), "net-1.2.3", rng.randrange(8)
    paths = [folder, *sorted(folder.rglob("*"))]
    with tarfile.open(tar, "w", format=rng.choice([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])) as out:
        for path in paths if kind != 6 else [folder, *(p for p in paths if p.is_dir()), *_files(folder)]:
            name = "/".join((top, *path.relative_to(folder).parts))
            info = tarfile.TarInfo(name)
            info.type, info.mode = (tarfile.DIRTYPE, 0o755) if path.is_dir() else (tarfile.REGTYPE, 0o644)
            info.mtime, info.uid = (kind == 0) * 7, (kind == 1) * 1000
            content = path.read_bytes() if path.is_file() else b""
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
            if path.name == "card.md" and kind in (2, 3, 4, 5):
                more = tarfile.TarInfo([f"{top}/../x", "/x", f"{top}/card.md", f"{top}/link"][kind - 2])
                more.type = tarfile.SYMTYPE if kind == 5 else tarfile.REGTYPE
                more.linkname, more.mode = "/etc/hostname" if kind == 5 else "", 0o644
                out.addfile(more)
        if kind in (6, 7):
            more = tarfile.TarInfo(f"{top}/{'.hidden' if kind == 7 else 'extra'}")
            out.addfile(more, io.BytesIO(b""))
    return tar


_OWN = [f for name, f in sorted(globals().items()) if callable(f) and getattr(f, "__module__", "") == __name__]
CHANGES: tuple[Change, ...] = tuple(f for f in _OWN if not f.__name__.startswith("_"))
"""Every function above."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle that is not to be changed."""
    return signed.release(tmp_path_factory.mktemp("original"))


def _refused(original: Path, place: Path, seeds: range) -> list[str]:
    """What passed that must not."""
    passed = []
    for seed in seeds:
        change, rng = CHANGES[seed % len(CHANGES)], random.Random(seed)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        folder = Path(shutil.copytree(original, place / original.name))
        shutil.copyfile(original.with_name("net-1.2.3.tar"), place / "net-1.2.3.tar")
        changed = change(folder, rng) or folder
        problems, _ = verify_bundle.check(changed, PUBLIC)
        if not problems:
            passed.append(f"{seed}: {change.__name__}")
        assert all(isinstance(p, str) and "\n" not in p for p in problems)
    return passed


@pytest.mark.parametrize("num", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_changed_bundles_are_refused(num: int, original: Path, tmp_path: Path) -> None:
    assert len(CHANGES) >= 38
    assert verify_bundle.check(original, PUBLIC)[0] == []
    assert _refused(original, tmp_path / "changed", range(num)) == []


@pytest.mark.parametrize("num", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_unchanged_bundles_pass(num: int, tmp_path: Path) -> None:
    for seed in range(num):
        rng = random.Random(seed)
        name = rng.choice(["net", "a.b", "Mails_2", "x" * 60, "digits-de"])
        version = f"{rng.randrange(30)}.{rng.randrange(30)}.{rng.randrange(10**6)}"
        folder = signed.release(tmp_path / str(seed), seed, name, version, key=seed)
        key = signed.private_key(seed).public_key()
        for place in (folder, folder.with_name(f"{folder.name}.tar")):
            problems, told = verify_bundle.check(place, key, at_least=version)
            assert problems == []
            assert f"{name}-{version}: 20 files" in told
            assert verify_bundle.fingerprint(key) in told
        unsigned = next(p for p in folder.parent.iterdir() if p.name.startswith(".source"))
        assert verify_bundle.check(unsigned)[0] == []


def test_an_older_version_is_refused_where_a_newer_one_is_asked_for(original: Path) -> None:
    assert verify_bundle.check(original, PUBLIC, "1.2.3")[0] == []
    assert verify_bundle.check(original, PUBLIC, "1.2.4")[0] == ["net-1.2.3: older than 1.2.4"]
    assert verify_bundle.check(original, PUBLIC, "1.10.0")[0] == ["net-1.2.3: older than 1.10.0"]


def test_a_signed_bundle_does_not_pass_as_unsigned_nor_the_other_way_round(original: Path, tmp_path: Path) -> None:
    assert verify_bundle.check(original)[0] == ["attestation.dsse.json: the bundle is signed: give the key"]
    unsigned = signed.unsigned(tmp_path / "bundle")
    assert "attestation.dsse.json: the bundle is not signed" in verify_bundle.check(unsigned, PUBLIC)[0]
    (unsigned / "labels.json").write_text("other")
    assert verify_bundle.check(unsigned)[0] == ["labels.json: other bytes than SHA256SUMS says"]


def test_something_else_that_the_key_signed_is_no_release(original: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original, tmp_path / original.name))
    for payload in (b"[]", b"not json", b'{"subject": [{"name": 1, "digest": {"sha256": 2}}]}'):
        _put(folder / ENVELOPE, signing.envelope(payload, signed.private_key()))
        assert "the signature does not hold" in verify_bundle.check(folder, PUBLIC)[0][-1]
    hashes = {p.relative_to(folder).as_posix(): signing.hash_file(p) for p in _files(folder) if p.name != ENVELOPE}
    told = json.loads(signing.statement(hashes, "net", "1.2.3")) | {"predicateType": "https://slsa.dev/provenance/v1"}
    _put(folder / ENVELOPE, signing.envelope(json.dumps(told).encode(), signed.private_key()))
    assert verify_bundle.check(folder, PUBLIC)[0][-1].endswith("net-1.2.3 (https://slsa.dev/provenance/v1)")


def test_a_place_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    assert "No such file" in verify_bundle.check(tmp_path / "nowhere", PUBLIC)[0][0]
    (tmp_path / "empty").mkdir()
    assert verify_bundle.check(tmp_path / "empty", PUBLIC)[0]
    (tmp_path / "x.tar").write_bytes(b"")
    assert verify_bundle.check(tmp_path / "x.tar", PUBLIC)[0]


def test_the_same_release_is_the_same_bytes(original: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = signed.release(tmp_path)
    finally:
        os.umask(before)
    assert again.with_name("net-1.2.3.tar").read_bytes() == original.with_name("net-1.2.3.tar").read_bytes()
    assert (again / ENVELOPE).read_bytes() == (original / ENVELOPE).read_bytes()


def test_the_tar_unpacks_with_the_ordinary_tool_to_the_same_bundle(original: Path, tmp_path: Path) -> None:
    with tarfile.open(original.with_name("net-1.2.3.tar")) as tar:
        tar.extraction_filter = getattr(tarfile, "tar_filter", None)  # Python 3.11.4 and later
        tar.extractall(tmp_path)
    assert verify_bundle.check(tmp_path / "net-1.2.3", PUBLIC)[0] == []
    assert [p.name for p in _files(tmp_path)] == [p.name for p in _files(original)]


def test_the_envelope_is_dsse(original: Path) -> None:
    """By the library that made it, from what was written."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    envelope = Envelope.from_dict(json.loads((original / ENVELOPE).read_bytes()))
    key = SSlibKey.from_crypto(PUBLIC, keyid=verify_bundle.fingerprint(PUBLIC))
    assert envelope.verify([key], 1)
    assert json.loads(envelope.payload)["_type"] == "https://in-toto.io/Statement/v1"


def test_the_script_is_short_and_needs_cryptography_alone() -> None:
    import ast

    text = SCRIPT.read_text("utf-8")
    assert text.count("\n") < 200
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]  # type: ignore[union-attr]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


def _script(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In a process that has nothing of this project, and no network where the system can do without."""
    alone = ["unshare", "-rn"] if shutil.which("unshare") and _may_unshare() else []
    command = [*alone, sys.executable, "-I", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def _may_unshare() -> bool:
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0


def test_it_runs_as_a_script_without_network_and_this_project(tmp_path: Path) -> None:
    source = signed.unsigned(tmp_path / "source")
    shutil.copyfile(SCRIPT, source / "verify.py")
    signed.sum_up(source)
    folder = tmp_path / "net-0.1.0"
    signing.seal(source, folder, signed.private_key(), "net", "0.1.0")
    key = tmp_path / "public.pem"
    key.write_bytes(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    done = _script(folder / "verify.py", "--key", key, cwd=Path("/"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OK: net-0.1.0: 20 files")
    assert verify_bundle.check(folder, PUBLIC)[0] == []  # it left nothing behind
    (folder / "model.onnx").write_bytes(b"other")
    done = _script(folder / "verify.py", "--key", key, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "REFUSED: 2 problems"
    assert "model.onnx: other bytes than what was signed says" in done.stdout


def test_it_imports_nothing_that_lies_beside_it(tmp_path: Path) -> None:
    folder = signed.unsigned(tmp_path / "bundle")
    shutil.copyfile(SCRIPT, folder / "verify.py")
    for name in ("tarfile", "argparse", "unicodedata", "cryptography"):
        (folder / f"{name}.py").write_text("open('ran.txt', 'w').write('it ran')\nprint('OK: all holds')\nexit(0)\n")
    command = [sys.executable, "verify.py", "--unsigned"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "- tarfile.py: not in SHA256SUMS" in done.stdout
    assert not (folder / "ran.txt").exists()


NAMES = ("x\nOK: net-1.2.3: 20 files", "\x1b[2K\x1b[1AOK: all holds", "OK: net-1.2.3", "\udcff", "\u202eno", "\x9bA")


@pytest.mark.parametrize("name", NAMES)
def test_no_name_writes_what_only_the_script_says(name: str, tmp_path: Path) -> None:
    folder = signed.unsigned(tmp_path / "bundle")
    (folder / name).write_text("")
    done = _script(SCRIPT, "--unsigned", folder, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.isascii()
    assert done.stdout.replace("\n", "").isprintable()
    assert not any(line.startswith("OK") for line in done.stdout.splitlines())
    strange = folder.rename(tmp_path / name.replace("/", ""))
    assert _script(SCRIPT, "--unsigned", strange, cwd=tmp_path).stderr == ""


def test_without_a_key_links_to_files_are_the_files_that_they_lead_to(tmp_path: Path) -> None:
    """As where DVC's cache is of links."""
    folder = signed.unsigned(tmp_path / "bundle")
    symbolic_link(folder, random.Random(0))
    problems, told = verify_bundle.check(folder)
    assert (problems, told.split(",")[0]) == ([], "bundle: 19 files")
    (tmp_path / "aside").write_text("other")
    assert "other bytes than SHA256SUMS says" in verify_bundle.check(folder)[0][0]
    (folder / "nowhere").symlink_to("not there")
    (folder / "all").symlink_to(folder / "variants")
    assert sum(line.endswith("a link or a device") for line in verify_bundle.check(folder)[0]) == 2


def test_a_name_that_is_a_file_and_a_folder_is_refused(original: Path, tmp_path: Path) -> None:
    top, tar = "bundle", tmp_path / "bundle.tar"
    hashed = hashlib.sha256(b"").hexdigest()
    sums = f"{hashed}  a/x\n{hashed}  a/x/y\n{hashed}  /etc/x\n".encode()
    entries = [("", True), ("a", True), ("a/x", False), ("a/x/y", False), ("/etc/x", False)]
    content = b"".join(verify_bundle.header(f"{top}/{n}" if n else top, 0, folder) for n, folder in entries)
    content += verify_bundle.header(f"{top}/{SUMS}", len(sums), False) + sums + bytes(-len(sums) % 512)
    tar.write_bytes(content + bytes(-(len(content) + 1024) % 10240 + 1024))
    problems, _ = verify_bundle.check(tar)
    assert "a/x: an empty folder, or a file and a folder" in problems
    assert any(line.startswith("/etc/x: differs from") for line in problems)


def test_a_file_too_large_for_a_tar_is_told(tmp_path: Path) -> None:
    folder = signed.unsigned(tmp_path / "bundle")
    with (folder / "model.onnx").open("wb") as model:
        model.truncate(8 << 30)
    with pytest.raises(InputError, match=r"bundle/model\.onnx has 8589934592 bytes.*make the model smaller") as told:
        signing.write_tar(folder, "bundle", tmp_path / "bundle.tar")
    assert "shorter name" not in str(told.value)
    (folder / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"give run\.name a shorter name"):
        signing.write_tar(folder, "x" * 300, tmp_path / "bundle.tar")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --key PUBLIC.pem or --unsigned"),
        (["--key", "nowhere.pem"], "not a public key in PEM form (FileNotFoundError)"),
        (["--key", "text.pem"], "not a public key in PEM form (ValueError)"),
        (["--key", "rsa.pem"], "not an Ed25519 key"),
        (["--unsigned", "--at-least", "new"], "a version such as 1.2.0"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], told: str, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    (tmp_path / "text.pem").write_text("hello")
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "rsa.pem").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    done = _script(SCRIPT, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_no_name_of_this_machine_is_in_a_release(original: Path) -> None:
    content = original.with_name("net-1.2.3.tar").read_bytes()
    for trace in (str(original.parent), str(Path.home()), socket.gethostname()):
        assert len(trace) < 5 or trace.encode() not in content
