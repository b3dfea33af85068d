"""What `python -m pipelines` understands, and its help. A command's module is loaded when it runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from pipelines import line, operating

CODES = """exit codes: 0 done; 1 a fault of ours; 2 a mistake in params or input; 3 refused by a verdict;
124 a time limit of infra/operations.yaml; 130 interrupted"""
ANY = "a folder, a .tar, a project, or a commit or tag of this project"
BECAUSE = 'why; kept in the record of runs. GRAFTLINE_TRIGGER="schedule: TEXT" says it for cron, and ci: for CI'
RUN = """Stages show as task runs with their names, unchanged ones as Cached. PREFECT_API_URL names a server;
without it Prefect starts one for this run, in 8 to 20 s. Where nothing is stale, it is not started.

examples:
  python -m pipelines run
  PREFECT_API_URL=http://127.0.0.1:4200/api python -m pipelines run --record"""
REPRO = """Like `dvc repro --keep-going`: a stage that fails stops those that need it and no others, so a
refused model still gets its report.

examples:
  python -m pipelines repro
  python -m pipelines repro evaluate"""
NEW = """The new project is a git clone that shares this one's DVC cache and environment.

examples:
  python -m pipelines new ../flowers --data ~/pictures/flowers    a folder of class folders
  python -m pipelines new ../scans --data scans.csv               a table with a path column
  python -m pipelines new ../mails --data mails.csv               a table with a column of texts
  python -m pipelines new ../emoji --example emoji"""

REPRODUCE = """First every hash of the bundle is checked, and its signature by --key. Then, in seconds, code, params,
libraries, processor, data and weights are held against what it records; code runs only from a commit to which a branch
or tag of this project leads. Then the line runs in a clean workspace, from the recorded commit, and every output of it
and every file of the bundle is compared.

examples:
  python -m pipelines reproduce artifacts/handoff/bundle
  python -m pipelines reproduce releases/digits-1.2.0 --key PUBLIC.pem --in /scratch --keep"""

PREDICT = """Every hash of the bundle is checked first, and its signature; one that does not hold is not run. The key
is that of --key, else your own; a commit of this project, and what is not released, has no signature: --unsigned.
Then its own predict.py labels the files in a process of its own; what else it takes, its --help says.

examples:
  python -m pipelines predict releases/digits-1.0.0 a.png b.png --key PUBLIC.pem --top 3
  python -m pipelines predict releases/mails-1.2.0.tar --key PUBLIC.pem --lines mails.jsonl --json
  python -m pipelines predict artifacts/handoff/bundle a.png --unsigned
  python -m pipelines predict HEAD~1 a.png --unsigned"""
DIFF = """A and B are bundles: folders, .tar files, projects, or commits and tags of this project, whose bundles lie in
DVC's cache.

examples:
  python -m pipelines diff digits@v1.0.0 artifacts/handoff/bundle
  python -m pipelines diff releases/digits-1.0.0 releases/digits-1.1.0.tar --measure"""
AUDIT = """Which data, code and weights made this model; why it was blessed; what changed since the one before; what was
set aside. With --file or --weights: which models rest on it. Looks at artifacts/, at releases/, and at what git's
history and DVC's cache hold.

examples:
  python -m pipelines audit
  python -m pipelines audit releases/digits-1.0.0
  python -m pipelines audit --file ~/pictures/1.png
  python -m pipelines audit --weights 579344248a93e230"""

KEYGEN = """An Ed25519 key pair, release.pem and release.pub.pem, in the user's configuration folder. Nothing is
overwritten, and no key is made inside a git work tree.

examples:
  python -m pipelines keygen
  python -m pipelines keygen --folder ~/keys"""
RELEASE = """Takes artifacts/handoff/bundle if its verdicts passed, its files hold and the work tree is clean; writes
releases/NAME-VERSION/ and its .tar, signed, the same bytes each time; and registers the version as a git tag in
the form of GTO (NAME@v1.2.3).

examples:
  python -m pipelines release
  python -m pipelines release --version 1.2.0 --key ~/keys/release.pem"""
VERIFY = """Offline. Every file and the signature, as the bundle's own verify.py does, which needs nothing of this
project; then the schemas of the BOM (CycloneDX 1.6 and 1.7), of the provenance (in-toto, SLSA) and of the signature of
inputs and outputs, and that the model is one file of known operators.

examples:
  python -m pipelines verify releases/digits-1.0.0
  python -m pipelines verify digits-1.2.0.tar --key PUBLIC.pem --at-least 1.1.0
  python -m pipelines verify artifacts/handoff/bundle --unsigned --completeness"""


class _Commands:
    """The subcommands of one parser, each with its help and the exit codes."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._all = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(
        self, name: str, does: Callable[[argparse.Namespace], int], told: str, more: str = ""
    ) -> argparse.ArgumentParser:
        """One more; `told` is its line in the list, `more` what its own help says besides."""
        epilog = (more or "example:\n  python -m pipelines " + name) + "\n\n" + CODES
        plain = argparse.RawDescriptionHelpFormatter
        one = self._all.add_parser(name, help=told, description=told, epilog=epilog, formatter_class=plain)
        one.set_defaults(does=does)
        return one


def parser() -> argparse.ArgumentParser:
    """The whole command line; what it parses has `does`, to be called with itself."""
    whole = argparse.ArgumentParser(
        prog="python -m pipelines",
        description="A production line for transfer learning. Run it in a project; params.yaml says what.",
        epilog=f"first run:  python -m pipelines check && python -m pipelines repro\n\n{CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands, here = _Commands(whole), Path.cwd()
    _about_the_line(commands, here)
    _about_bundles(commands, here)
    _about_releases(commands, here)
    operating.add_to(commands, here)
    commands.add("list", lambda _: line.show_plugins(), "every family of plugins, with a sentence on each plugin")
    return whole


def _about_the_line(commands: _Commands, here: Path) -> None:
    told = "the whole line as the Prefect flow `train`"
    one = commands.add("run", lambda a: line.run(here, a.record, a.because), told, RUN)
    one.add_argument("--because", metavar="TEXT", default="", help=BECAUSE)
    one.add_argument("--record", action="store_true", help="record a flow run even if nothing is stale")
    told = "the whole line through DVC alone, and a summary"
    one = commands.add("repro", lambda a: line.repro(here, a.stage, a.because), told, REPRO)
    one.add_argument("--because", metavar="TEXT", default="", help=BECAUSE)
    one.add_argument("stage", nargs="?", metavar="STAGE", help="only this stage; what it reads is taken as it is")
    commands.add("check", lambda _: line.check(here), "read params.yaml and tell every mistake at once; runs nothing")
    commands.add("status", lambda _: line.status(here), "which stages would run now, and why")
    commands.add("summary", lambda _: line.summary(here), "ten lines on what the last run came to")
    told = "make another project around your data"
    one = commands.add("new", lambda a: new(here, Path(a.folder), a.data, a.example), told, NEW)
    one.add_argument("folder", metavar="DIR", help="where the project is made")
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="X", help="a folder of class folders, or a CSV, JSONL or Parquet table")
    source.add_argument("--example", metavar="NAME", help="a folder of examples/")


def _about_bundles(commands: _Commands, here: Path) -> None:
    told = "make the model of a bundle again; is it the same?"
    one = commands.add("reproduce", lambda a: reproduce(here, a), told, REPRODUCE)
    one.add_argument("bundle", metavar="BUNDLE", help=f"{ANY}, made by this project")
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust, for a released bundle")
    one.add_argument("--in", dest="place", metavar="DIR", help="make the workspace there, not in the system's folder")
    one.add_argument("--keep", action="store_true", help="leave the workspace, to look at what was made")
    one.add_argument("--anyway", action="store_true", help="rebuild even if it is known that something differs")
    told = "label files with a bundle, once it was verified"
    one = commands.add("predict", lambda a: predict(here, a.bundle, a.words, a.key, a.unsigned), told, PREDICT)
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust; by default your own")
    one.add_argument("--unsigned", action="store_true", help="take a bundle that is not released")
    one.add_argument("bundle", metavar="BUNDLE", help=ANY)
    one.add_argument("words", metavar="FILE...", nargs=argparse.REMAINDER, help="files, and options of its predict.py")
    told = "what differs between two bundles; does it matter?"
    one = commands.add("diff", lambda a: diff(here, a.a, a.b, a.json, a.measure), told, DIFF)
    one.add_argument("a", metavar="A", help=ANY)
    one.add_argument("b", metavar="B", help="the other one")
    one.add_argument("--json", action="store_true", help="print all of it as JSON")
    one.add_argument("--measure", action="store_true", help="measure both on this machine too; takes half a minute")
    told = "where a model comes from; which models rest on a file"
    one = commands.add("audit", lambda a: audit(here, a.bundle, a.file, a.weights, a.json), told, AUDIT)
    one.add_argument("bundle", metavar="BUNDLE", nargs="?", help=f"{ANY}; by default the one at hand")
    which = one.add_mutually_exclusive_group()
    which.add_argument("--file", metavar="PATH", help="which models used this file?")
    which.add_argument("--weights", metavar="SHA256", help="which models rest on these weights? at least 8 digits")
    one.add_argument("--json", action="store_true", help="print all of it as JSON")


def _about_releases(commands: _Commands, here: Path) -> None:
    one = commands.add("keygen", lambda a: keygen(a.folder), "make a key pair for signing releases", KEYGEN)
    one.add_argument("--folder", metavar="DIR", help="where the keys are put")
    told = "sign the bundle as a version"
    one = commands.add("release", lambda a: release(here, a.key, a.version, a.unclean), told, RELEASE)
    one.add_argument("--key", metavar="FILE", help="private key; by default the one that keygen made")
    one.add_argument("--version", metavar="V", help="such as 1.2.0; by default the next")
    one.add_argument("--unclean", action="store_true", help="release what could not be made again from a commit")
    one = commands.add("verify", verify, "check a bundle offline: every file, the signature, the schemas", VERIFY)
    one.add_argument("bundle", metavar="BUNDLE", help="the folder of a bundle, or its .tar")
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust; by default your own")
    one.add_argument("--unsigned", action="store_true", help="take a bundle that is not released")
    one.add_argument("--at-least", metavar="VERSION", default="0.0.0", help="refuse an older one")
    one.add_argument("--completeness", action="store_true", help="print the BOM field by field")


def new(root: Path, folder: Path, data: str | None, example: str | None) -> int:
    """Another project, around other data."""
    from pipelines.new import new as make

    print("\n".join(make(root, folder, data, example)))
    return 0


def reproduce(root: Path, options: argparse.Namespace) -> int:
    """Make the model of a bundle again, and say whether it is the same."""
    from pipelines.bundles import opened
    from pipelines.reproduce import Wish
    from pipelines.reproduce import reproduce as again

    place = Path(options.place) if options.place else None
    with opened(root, options.bundle) as bundle:
        return again(root, bundle, Wish(place, options.keep, options.anyway, options.key))


def predict(root: Path, bundle: str, words: list[str], key: str | None, unsigned: bool) -> int:
    """Label files with a bundle that holds."""
    from pipelines.predict import predict as label

    own = [*(["--key", key] if key else []), *(["--unsigned"] if unsigned else [])]
    return label(root, bundle, [*own, *words])


def diff(root: Path, a: str, b: str, as_json: bool, measure: bool) -> int:
    """What differs between two bundles."""
    from pipelines.diff import diff as show

    return show(root, a, b, as_json, measure)


def audit(root: Path, bundle: str | None, file: str | None, weights: str | None, as_json: bool) -> int:
    """Where a model comes from, and what rests on a file."""
    from pipelines.audit import audit as answer

    return answer(root, bundle, file, weights, as_json)


def keygen(folder: str | None) -> int:
    """A key pair for signing."""
    from pipelines.release import keygen as make

    print("\n".join(make(Path(folder) if folder else None)))
    return 0


def release(root: Path, key: str | None, version: str | None, unclean: bool) -> int:
    """Sign the bundle at hand as a version."""
    from pipelines.release import release as sign

    print("\n".join(sign(root, Path(os.path.expanduser(key)) if key else None, version, unclean)))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Whether a bundle is the one that was released."""
    from pipelines.verify import verify as check_all

    key = Path(os.path.expanduser(options.key)) if options.key else None
    told = check_all(Path(options.bundle), key, options.unsigned, options.at_least, options.completeness)
    print("\n".join([*told, "All holds."]))
    return 0
