"""`python -m pipelines keygen` and `release`: sign what the line handed over, and register it as a version.

A release is `releases/<name>-<version>/`, the .tar of it, and a git tag in the form of GTO (`name@v1.2.3`) on the
commit that holds dvc.lock. Signing needs no network; the private key lies in the user's config folder, never in git.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from components.contracts import InputError, Refused, Verdict, read_record
from pipelines import dag, dvc_cli, processes
from pipelines.bundles import BUNDLE, RELEASES, own_keys

JUDGES = ("gate", "export")
FIRST = "0.0.1"


def keygen(folder: Path | None = None) -> list[str]:
    """Make a key pair, release.pem and release.pub.pem.

    Raises:
        InputError: there is one already, or the folder lies in a git work tree.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from components.handoff import verify_bundle

    place = Path(os.path.expanduser(folder or own_keys())).resolve()
    inside = next((p for p in (place, *place.parents) if (p / ".git").exists()), None)
    if inside:
        raise InputError(
            f"{place} lies in the git work tree {inside}, where a key may be committed. Name another folder"
        )
    private, public = place / "release.pem", place / "release.pub.pem"
    there = [path for path in (private, public) if path.exists() or path.is_symlink()]
    if there:
        raise InputError(f"{there[0]} is there already, and is not overwritten. Name another folder, or move it away")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        os.fchmod(handle.fileno(), stat.S_IRUSR | stat.S_IWUSR)  # whatever the umask is
        handle.write(secret)
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return [
        f"private key: {private} (mode 0600; keep it, and give it to nobody)",
        f"public key:  {public} (give it to whoever checks your bundles)",
        f"fingerprint: {verify_bundle.fingerprint(key.public_key())}",
    ]


def release(root: Path, key: Path | None = None, version: str | None = None, unclean: bool = False) -> list[str]:
    """Sign the stage's bundle as a version; what was made, by lines. The same again gives the same bytes.

    Raises:
        InputError: no bundle, no key, or a version that cannot be taken.
        Refused: a verdict did not pass, the bundle does not hold, or the work tree is not clean.
    """
    from components.handoff import provenance, signing, verify_bundle

    bundle = root / BUNDLE
    if not bundle.is_dir():
        raise InputError(f"{BUNDLE} is not there. Run `python -m pipelines repro` first")
    for stage in JUDGES:
        _check_verdict(root, stage)
    problems, _ = verify_bundle.check(bundle)
    if problems:
        raise Refused("\n".join([f"{BUNDLE} does not hold:", *(f"  - {p}" for p in problems)]))
    origin = provenance.read(bundle)
    found = _unclean(root, origin)
    why = [told for told, _ in found]
    if why and not unclean:
        lines = [*(f"  - {told}" for told in why), "First, in this order:", *(f"  {first}" for _, first in found)]
        lines.append("Or release it as it is: --unclean")
        raise Refused("\n".join(["not released, because it could not be made again:", *lines]))
    private = signing.read_key(key or own_keys() / "release.pem")
    tag = _tag_name(origin.name)
    version = _version(root, origin.name, tag, version, bundle)
    registered = _registered(root, tag, version)
    if not registered:
        _check_identity(root)
    told = _write(root, bundle, private, origin.name, version)
    tagged = f"git tag {tag}@v{version}, which was there already" if registered else _register(root, tag, version)
    return [*told, tagged, *(f"not clean: {w}" for w in why)]


def _check_verdict(root: Path, stage: str) -> None:
    path = root / "artifacts" / stage / "verdict.json"
    if not path.is_file():
        raise Refused(
            f"not released: artifacts/{stage}/verdict.json is not there, and what is not judged has not passed"
        )
    judged = read_record(Verdict, path)
    if not judged.passed:
        raise Refused(f"not released, because {stage} refused:\n{judged.refusal()}")


def _unclean(root: Path, origin: Any) -> list[tuple[str, str]]:
    """Why nobody could make this bundle again from the last commit, and what mends it, in that order; nothing if they
    can."""
    found = []
    code, changes, complaint = processes.quietly(["git", "status", "--porcelain", "-z"], root)
    if code:
        raise InputError(f"a release is a git tag, but git refuses here: {complaint.splitlines()[-1:] or code}")
    names = [one[3:] for one in changes.decode("utf-8", "replace").split("\0") if one]
    if names:
        told = f"the work tree is not clean: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        found.append((told, "git add --all, and git commit"))
    stale = dvc_cli.stale(root) if dag.load(root) else {}
    if stale:
        told = f"dvc.lock does not tell of what lies there; these would run: {', '.join(sorted(stale))}"
        found.append((told, "python -m pipelines repro, and commit dvc.lock and the metrics"))
    if not origin.clean:
        named = ", ".join(origin.differing[:5]) or origin.commit_note
        told = f"when the bundle was made, its files were not those of a commit: {named}"
        again = "dvc repro --force --single-item handoff, which notes the commit; and commit dvc.lock"
        found.append((told, again))
    return found


def _tag_name(name: str) -> str:
    """GTO's names have no dots, and end in a letter or digit."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name).rstrip("-_")


def _released(root: Path, name: str, tag: str) -> list[tuple[int, ...]]:
    from components.handoff.verify_bundle import VERSION

    _, out, _ = processes.quietly(["git", "tag", "--list", f"{tag}@v*"], root)
    texts = [line.removeprefix(f"{tag}@v").split("!")[0].split("#")[0] for line in out.decode().splitlines()]
    texts += [p.name.removeprefix(f"{name}-").removesuffix(".tar") for p in (root / RELEASES).glob(f"{name}-*")]
    return sorted({tuple(map(int, text.split("."))) for text in texts if VERSION.fullmatch(text)})


def _version(root: Path, name: str, tag: str, asked: str | None, bundle: Path) -> str:
    """The one asked for; else that of the newest release if it is of this very bundle; else the next."""
    from components.handoff.verify_bundle import SUMS, VERSION

    if asked is not None:
        if not VERSION.fullmatch(asked):
            raise InputError(f"--version: {asked!r} is not a version such as 1.2.0")
        return asked
    done = _released(root, name, tag)
    if not done:
        return FIRST
    last = ".".join(map(str, done[-1]))
    sums = root / RELEASES / f"{name}-{last}" / SUMS
    if sums.is_file() and sums.read_bytes() == (bundle / SUMS).read_bytes():
        return last
    return ".".join(map(str, (*done[-1][:2], done[-1][2] + 1)))


def _write(root: Path, bundle: Path, private: Any, name: str, version: str) -> list[str]:
    """The folder and its tar, each whole or not at all, checked as the receiver will."""
    from components.handoff import signing, verify_bundle
    from components.lineage import hash_path

    releases = root / RELEASES
    final, aside = releases / f"{name}-{version}", releases / ".building"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        made, tar = aside / final.name, aside / f"{final.name}.tar"
        signing.seal(bundle, made, private, name, version)
        signing.write_tar(made, final.name, tar)
        for place in (made, tar):
            problems, told = verify_bundle.check(place, private.public_key())
            assert not problems, problems
        same = _same(tar, final.with_name(tar.name))
        folder_alone = same is None and final.exists()  # as a crash between the two renames leaves it
        if same is False or (folder_alone and hash_path(made) != hash_path(final)):
            raise InputError(
                f"{final.relative_to(root)} is there with other content. A version is released once: name another"
            )
        if same is None:
            if not folder_alone:
                made.rename(final)
            tar.rename(final.with_name(tar.name))
        elif verify_bundle.check(final, private.public_key())[0]:
            raise InputError(
                f"{final.relative_to(root)} was changed since it was released. Take it away, and run again"
            )
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [
        f"{RELEASES}/{final.name}{' (was there already, the same bytes)' if same else ''}",
        f"  {told}",
        f"{RELEASES}/{tar.name}",
    ]


def _same(one: Path, other: Path) -> bool | None:
    """None: the other is not there."""
    from components.lineage import hash_file

    return hash_file(one) == hash_file(other) if other.is_file() else None


def _registered(root: Path, tag: str, version: str) -> bool:
    """Whether the version has its git tag, on the last commit.

    Raises:
        InputError: it names another commit, or this commit is another version.
    """
    full = f"{tag}@v{version}"
    _, there, _ = processes.quietly(["git", "rev-list", "-n", "1", f"refs/tags/{full}"], root)
    _, head, _ = processes.quietly(["git", "rev-parse", "HEAD"], root)
    if there.strip() and there != head:
        raise InputError(f"the git tag {full} names another commit than the last. Name another version")
    _, here, _ = processes.quietly(["git", "tag", "--points-at", "HEAD", "--list", f"{tag}@v*"], root)
    others = sorted(set(here.decode().split()) - {full})
    if others:
        raise InputError(f"the last commit is {others[-1]} already, and a commit is one version. Commit what is new")
    return bool(there.strip())


def _check_identity(root: Path) -> None:
    """A version's tag bears a name; without one nothing is written.

    Raises:
        InputError: git does not know whose it would be.
    """
    for key, variable, example in (
        ("user.name", "GIT_COMMITTER_NAME", "Your Name"),
        ("user.email", "GIT_COMMITTER_EMAIL", "you@example.com"),
    ):
        code, told, _ = processes.quietly(["git", "config", "--get", key], root)
        if not os.environ.get(variable) and (code or not told.strip()):
            raise InputError(
                f"a release is a git tag that bears your name, and git does not know {key}. Nothing was written. "
                f'Run: git config {key} "{example}"'
            )


def _register(root: Path, tag: str, version: str) -> str:
    """The tag on the last commit, through GTO."""
    import gto.api
    from gto.exceptions import GTOException
    from scmrepo.exceptions import SCMError

    full = f"{tag}@v{version}"
    try:
        gto.api.register(root, tag, "HEAD", version=f"v{version}", message=f"{tag} {version}")
    except (GTOException, SCMError) as error:
        raise InputError(f"the files are there, but GTO did not register {full}: {error}") from None
    return f"git tag {full}; push it with `git push origin {full}`"


def assign(root: Path, name: str, environment: str, version: str) -> str:
    """A stage in the form of GTO, `NAME#ENVIRONMENT#N` on the commit of that version, unless it has it already; a line
    on it. By git alone, as a rollback has no time for GTO's import; a test shows that GTO reads it.

    Raises:
        InputError: git refuses, or knows no such version.
    """
    tag = _tag_name(name)
    if not environment[-1:].isalnum():
        raise InputError(f"{environment!r} ends with a hyphen, as no stage of GTO does")
    listed = "--format=%(refname:strip=2)%00%(*objectname)%00%(objectname)%00%(taggerdate:unix)"
    code, out, told = processes.quietly(["git", "for-each-ref", listed, f"refs/tags/{tag}[@#]*"], root)
    if code:
        raise InputError(told.splitlines()[-1] if told else "git knows no repository here")
    rows = [line.split("\0") for line in out.decode("utf-8", "replace").splitlines()]
    commits = {row[0]: row[1] or row[2] for row in rows}
    commit = commits.get(f"{tag}@v{version}")
    if commit is None:
        raise InputError(f"git has no tag {tag}@v{version}")
    form = re.compile(re.escape(tag) + r"(?:#[^#!]+!?|@v[^#!]+!?)(?:#(\d+))?")
    counts = [int(found[1]) for row in rows if (found := form.fullmatch(row[0])) and found[1]]
    own = re.compile(re.escape(f"{tag}#{environment}") + r"!?(?:#(\d+))?")
    staged = [(int(row[3] or 0), int(found[1] or 0), row[0]) for row in rows if (found := own.fullmatch(row[0]))]
    if staged and commits[max(staged)[2]] == commit and "!" not in max(staged)[2]:
        return f"git tag {max(staged)[2]}, which was there already"
    _check_identity(root)
    full = f"{tag}#{environment}#{max(counts, default=0) + 1}"
    told = f"Assigning stage {environment} to artifact {tag} version v{version}"
    # GTO takes the newest by its second, so no two may bear the same one.
    when = max(int(time.time()), max(staged)[0] + 1 if staged else 0)
    dated = {**os.environ, "GIT_COMMITTER_DATE": f"@{when} +0000"}
    command = ["git", "tag", "--annotate", "--no-sign", "-m", told, full, commit]
    code, _, complaint = processes.quietly(command, root, environment=dated)
    if code:
        raise InputError(f"git tag: {complaint.splitlines()[-1] if complaint else code}")
    return f"git tag {full}; push it with `git push origin {full}`"


def tagged(root: Path, name: str, version: str) -> bool:
    """Whether git has the tag of that version, so that its commit stays."""
    full = f"refs/tags/{_tag_name(name)}@v{version}"
    return processes.quietly(["git", "rev-parse", "--verify", "--quiet", full], root)[0] == 0
