"""keygen, release and verify, in small real git projects."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import signed

from components.contracts import InputError, Refused, Rule, Verdict, write_json
from components.handoff import provenance, verify_bundle
from pipelines import release as release_module
from pipelines.release import keygen, release
from pipelines.verify import verify


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _commit(root: Path) -> None:
    _git(root, "add", "-A")
    _git(root, "-c", "commit.gpgsign=false", "commit", "-qm", "x", "--allow-empty")


def _bundle(root: Path, seed: int = 0, name: str = "net", clean: bool | None = True) -> None:
    folder = root / release_module.BUNDLE
    shutil.rmtree(folder, ignore_errors=True)
    signed.unsigned(folder, seed)
    told = provenance.Provenance(
        name, "c" * 40, clean, () if clean else ("params.yaml",), "", {}, {}, {}, {}, {}, {},
        {"manifest_sha256": "1" * 64, "accepted_sha256": "2" * 64}, "3" * 64, None,
    )  # fmt: skip
    write_json(folder / "provenance.json", provenance.statement(told))
    signed.sum_up(folder)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean project with a bundle, and a key of its user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("run: {}\n")
    (root / ".gitignore").write_text("artifacts/\nreleases/\n")
    _git(root, "init", "-q")
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        _git(root, "config", key, value)
    _commit(root)
    _bundle(root)
    for stage in release_module.JUDGES:
        write_json(root / "artifacts" / stage / "verdict.json", Verdict(stage, True))
    keygen()
    return root


def _public(root: Path) -> Any:
    return verify_bundle.read_key(str(root.parent / "config/graftline/release.pub.pem"))


def test_a_release_is_a_signed_folder_a_tar_and_a_tag(root: Path) -> None:
    told = release(root)
    assert told[0] == "releases/net-0.0.1"
    assert "git push origin net@v0.0.1" in told[-1]
    for place in (root / "releases/net-0.0.1", root / "releases/net-0.0.1.tar"):
        assert verify_bundle.check(place, _public(root))[0] == []
    assert _git(root, "tag") == "net@v0.0.1"
    assert _git(root, "rev-list", "-n", "1", "net@v0.0.1") == _git(root, "rev-parse", "HEAD")
    assert _git(root, "status", "--porcelain") == ""
    assert sorted(p.name for p in (root / "releases").iterdir()) == ["net-0.0.1", "net-0.0.1.tar"]


def test_the_same_release_again_is_the_same_bytes(root: Path, tmp_path: Path) -> None:
    release(root)
    tar = (root / "releases/net-0.0.1.tar").read_bytes()
    assert "was there already, the same bytes" in release(root)[0]
    shutil.rmtree(root / "releases")
    os.utime(root / release_module.BUNDLE / "model.onnx", (0, 0))
    (root / release_module.BUNDLE / "labels.json").chmod(0o600)
    before = os.umask(0o027)
    try:
        told = release(root, version="0.0.1")
    finally:
        os.umask(before)
    assert told[-1] == "git tag net@v0.0.1, which was there already"
    assert (root / "releases/net-0.0.1.tar").read_bytes() == tar


def test_the_next_version_follows_the_newest(root: Path) -> None:
    release(root, version="0.9.0")
    _bundle(root, 1)
    with pytest.raises(InputError, match=r"the last commit is net@v0\.9\.0 already"):
        release(root)
    assert not (root / "releases/net-0.9.1").exists(), "refused before anything was written"
    _commit(root)
    assert release(root)[0] == "releases/net-0.9.1"
    shutil.rmtree(root / "releases")
    _bundle(root, 2)
    _commit(root)
    assert release(root)[0] == "releases/net-0.9.2", "the tags are the registry"


def test_a_version_is_released_once(root: Path) -> None:
    release(root, version="1.0.0")
    _bundle(root, 1)
    with pytest.raises(InputError, match=r"releases/net-1\.0\.0 is there with other content"):
        release(root, version="1.0.0")
    _commit(root)
    with pytest.raises(InputError, match=r"the git tag net@v1\.0\.0 names another commit"):
        release(root, version="1.0.0")
    assert not (root / "releases/.building").exists()


def test_a_release_that_was_changed_is_told(root: Path) -> None:
    release(root)
    (root / "releases/net-0.0.1/labels.json").write_text("[]")
    with pytest.raises(InputError, match="was changed since it was released"):
        release(root)


def test_gto_reads_the_registry(root: Path) -> None:
    import gto.api

    _bundle(root, 0, "net.de")
    release(root, version="1.2.0")
    shown = gto.api.show(str(root), "net-de")
    assert [row["version"] for row in shown] == ["v1.2.0"]


@pytest.mark.parametrize("stage", release_module.JUDGES)
def test_what_was_refused_or_not_judged_is_not_released(stage: str, root: Path) -> None:
    path = root / "artifacts" / stage / "verdict.json"
    write_json(path, Verdict(stage, False, (Rule("accuracy at least 1", False, 0.5, 1.0, -0.5, "too low"),)))
    with pytest.raises(Refused, match=f"{stage} refused:\n.*too low"):
        release(root)
    path.unlink()
    with pytest.raises(Refused, match="what is not judged has not passed"):
        release(root)


def test_a_bundle_that_does_not_hold_is_not_released(root: Path) -> None:
    (root / release_module.BUNDLE / "labels.json").write_text("[]")
    with pytest.raises(Refused, match=r"labels\.json: other bytes"):
        release(root)
    shutil.rmtree(root / release_module.BUNDLE)
    with pytest.raises(InputError, match="pipelines repro"):
        release(root)


def test_an_unclean_work_tree_is_refused_or_told(root: Path) -> None:
    (root / "stray.py").write_text("")
    with pytest.raises(Refused, match=r"the work tree is not clean: stray\.py"):
        release(root)
    assert release(root, unclean=True)[-1] == "not clean: the work tree is not clean: stray.py"


@pytest.mark.parametrize("clean", [False, None])
def test_a_bundle_made_from_uncommitted_files_is_refused_or_told(clean: bool | None, root: Path) -> None:
    _bundle(root, clean=clean)
    with pytest.raises(Refused, match=r"not those of a commit: params\.yaml"):
        release(root)
    assert "not those of a commit" in release(root, unclean=True)[-1]


def test_what_dvc_does_not_know_is_not_clean(root: Path) -> None:
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (root / "dvc.yaml").write_text("stages:\n  ingest:\n    cmd: 'true'\n    outs: [artifacts/ingest/x]\n")
    _commit(root)
    with pytest.raises(Refused, match=r"these would run: ingest"):
        release(root)


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0-rc1", "../x", "01.0.0", ""])
def test_a_version_has_three_numbers(version: str, root: Path) -> None:
    with pytest.raises(InputError, match=r"is not a version such as 1\.2\.0"):
        release(root, version=version)


def test_a_project_without_git_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(root / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    with pytest.raises(InputError, match="a release is a git tag"):
        release(root)


def test_keys_are_made_once_and_for_their_user_alone(root: Path, tmp_path: Path) -> None:
    private = tmp_path / "config/graftline/release.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(InputError, match="is there already, and is not overwritten"):
        keygen()
    before = os.umask(0)
    try:
        told = keygen(tmp_path / "keys")
    finally:
        os.umask(before)
    assert (tmp_path / "keys/release.pem").stat().st_mode & 0o777 == 0o600
    public = verify_bundle.read_key(str(tmp_path / "keys/release.pub.pem"))
    assert told[-1] == f"fingerprint: {verify_bundle.fingerprint(public)}"
    assert "PRIVATE" not in "".join(told)


def test_a_release_bears_a_name_or_nothing_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for key, example in (("user.name", "Your Name"), ("user.email", "you@example.com")):
        before = _git(root, "config", key)
        _git(root, "config", "--unset", key)
        with pytest.raises(InputError, match=f'Nothing was written. Run: git config {key} "{example}"'):
            release(root)
        _git(root, "config", key, before)
    assert not (root / "releases").exists()
    assert release(root)[0] == "releases/net-0.0.1"


@pytest.mark.parametrize("inside", [".", "deeper/still"])
def test_no_key_is_made_in_a_git_work_tree(inside: str, root: Path) -> None:
    with pytest.raises(InputError, match="lies in the git work tree"):
        keygen(root / inside)
    link = root.parent / "link"
    link.symlink_to(root)
    with pytest.raises(InputError, match="lies in the git work tree"):
        keygen(link / "keys")
    assert not list(root.rglob("*.pem"))


def test_a_key_that_cannot_be_used_is_told(root: Path, tmp_path: Path) -> None:
    private = tmp_path / "config/graftline/release.pem"
    private.chmod(0o640)
    with pytest.raises(InputError, match=r"mode 0640.*chmod 600"):
        release(root)
    with pytest.raises(InputError, match=r"is not there\. Make a key"):
        release(root, tmp_path / "nowhere.pem")
    private.chmod(0o600)
    with pytest.raises(InputError, match="not a private key in PEM form"):
        release(root, tmp_path / "config/graftline/release.pub.pem")
    private.write_text("hello")
    with pytest.raises(InputError, match="not a private key in PEM form"):
        release(root)
    with pytest.raises(InputError, match="cannot be read"):
        release(root, tmp_path)


def test_verify_tells_missing_places_and_keys(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not there\. Name a bundle"):
        verify(tmp_path / "nowhere")
    bundle = root / release_module.BUNDLE
    with pytest.raises(InputError, match=r"nowhere\.pem is not there"):
        verify(bundle, tmp_path / "nowhere.pem")
    with pytest.raises(InputError, match="not a public key in PEM form"):
        verify(bundle, tmp_path / "config/graftline/release.pem")
    with pytest.raises(InputError, match="not both"):
        verify(bundle, tmp_path, unsigned=True)
    with pytest.raises(InputError, match="--at-least"):
        verify(bundle, at_least="new")
    with pytest.raises(Refused, match=r"the bundle is not signed\nA bundle.*is checked with --unsigned"):
        verify(bundle)
    shutil.rmtree(tmp_path / "config")
    with pytest.raises(InputError, match=r"name it with --key PUBLIC\.pem.*is checked with --unsigned"):
        verify(bundle)


def test_verify_refuses_what_the_schemas_refuse(root: Path) -> None:
    """Its files are random, and signed all the same."""
    release(root)
    for place in (root / "releases/net-0.0.1", root / "releases/net-0.0.1.tar"):
        with pytest.raises(Refused, match=r"(?s)bom\.cdx\.json: not JSON.*model\.onnx") as refused:
            verify(place)
        assert "/tmp" not in str(refused.value).split("\n", 1)[1]


def test_the_command_line_ends_with_its_exit_codes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.__main__ import main

    monkeypatch.chdir(root)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["keygen"]) == 2
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file/x", tmp_path / "file", tmp_path / ("x" * 300)):
        assert main(["keygen", "--folder", str(folder)]) == 2, folder
    assert main(["verify", "x" * 300]) == 2
    assert main(["keygen", "--folder", str(tmp_path / "other")]) == 0
    assert main(["verify", "nowhere"]) == 2
    assert main(["verify", release_module.BUNDLE]) == 3
    assert main(["release", "--version", "one"]) == 2
    (root / "stray").write_text("")
    assert main(["release"]) == 3
    (root / "stray").unlink()
    assert main(["release", "--key", str(tmp_path / "other/release.pem")]) == 0
    assert main(["verify", "releases/net-0.0.1"]) == 3, "signed by another key than this user's"
    told = capsys.readouterr()
    assert "signed by another key, or edited" in told.err
    assert "Traceback" not in told.err
