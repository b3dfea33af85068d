"""`python -m pipelines COMMAND`: the command line. Parsing only; each command loads what it needs.

Exit codes: 0 done; 1 a fault of ours; 2 a mistake in params or input; 3 refused by a verdict; 130 interrupted
(what was done stays done).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CODES = """exit codes: 0 done; 1 a fault of ours; 2 a mistake in params or input; 3 refused by a verdict;
130 interrupted"""
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

REPRODUCE = """First, in seconds, code, params, libraries, processor, data and weights are held against what the bundle
records. Then the line runs in a clean workspace, from the recorded commit, and every output is compared.

examples:
  python -m pipelines reproduce artifacts/handoff/bundle
  python -m pipelines reproduce ../digits-1.2.0 --in /scratch --keep"""

PREDICT = """Every hash of the bundle is checked first, and its signature by --key; one that does not hold is not run.
Then its own predict.py labels the files in a process of its own; what else it takes, its --help says.

examples:
  python -m pipelines predict releases/digits-1.0.0 a.png b.png --key PUBLIC.pem --top 3
  python -m pipelines predict releases/mails-1.2.0.tar --key PUBLIC.pem --lines mails.jsonl --json
  python -m pipelines predict artifacts/handoff/bundle a.png --unsigned"""
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


def run(root: Path, record: bool) -> int:
    """The line as the Prefect flow `train`. Where nothing is stale, Prefect is not started."""
    _check(root)
    from pipelines import dvc_cli

    with dvc_cli.turn(root):
        if not record and _nothing_to_do(root):
            return 0
        from pipelines import flows

        code, told = flows.run(root)
    return _end(root, code, told)


def repro(root: Path, stage: str | None) -> int:
    """The line, or one stage of it, through DVC alone."""
    _check(root, stage)
    from pipelines import dvc_cli

    with dvc_cli.turn(root):
        if stage is None and _nothing_to_do(root):
            return 0
        outcome = dvc_cli.repro(root, stage)
    return _end(root, outcome.code, outcome.told)


def check(root: Path) -> int:
    """Only read params.yaml and dvc.yaml."""
    print(_check(root))
    return 0


def status(root: Path) -> int:
    """What would run now, and why."""
    from pipelines import dag, dvc_cli

    line = dag.load(root)
    stale = dvc_cli.stale(root)
    waiting = dvc_cli.needing(line, stale)
    for stage in line:
        for reason in stale.get(stage.name, []):
            print(f"{stage.name:10} runs: {reason}")
        if stage.name in stale:
            print(*_last_stop(root, stage.name), sep="", end="")
        elif stage.name in waiting:
            print(f"{stage.name:10} runs if what it reads comes out different")
        else:
            print(f"{stage.name:10} unchanged")
    return 0


def summary(root: Path) -> int:
    """What the last run came to."""
    from pipelines.summary import summarise

    print("\n".join(summarise(root)))
    return 0


def new(root: Path, folder: Path, data: str | None, example: str | None) -> int:
    """Another project, around other data."""
    from pipelines.new import new as make

    print("\n".join(make(root, folder, data, example)))
    return 0


def reproduce(root: Path, options: argparse.Namespace) -> int:
    """Make the model of a bundle again, and say whether it is the same."""
    from pipelines.reproduce import reproduce as again

    place = Path(options.place) if options.place else None
    return again(root, Path(options.bundle), place, options.keep, options.anyway)


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

    print("\n".join(sign(root, Path(key).expanduser() if key else None, version, unclean)))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Whether a bundle is the one that was released."""
    from pipelines.verify import verify as check_all

    key = Path(options.key).expanduser() if options.key else None
    told = check_all(Path(options.bundle), key, options.unsigned, options.at_least, options.completeness)
    print("\n".join([*told, "All holds."]))
    return 0


def show_plugins() -> int:
    """Every family with its plugins; from their files, without loading them."""
    import ast

    from components import plugins

    folder = Path(plugins.__file__).parent
    for family in plugins.families():
        print(family)
        for name in plugins.names(family):
            text = folder.joinpath(*family.split("."), f"{name}.py").read_text("utf-8")
            card = " ".join((ast.get_docstring(ast.parse(text)) or "no card").split("\n\n")[0].split())
            print(f"  {name:24} {card.split('. ')[0].rstrip('.')}")
    return 0


def _check(root: Path, asked: str | None = None) -> str:
    """All mistakes of params.yaml at once, and data that is not there, before DVC or Prefect starts.

    Raises:
        InputError: there is one.
    """
    from components.contracts import InputError
    from pipelines import dag, libraries, stage

    print(*(f"{line}\n" for line in libraries.strays(root)), sep="", end="", file=sys.stderr)
    typed = stage.read_params(root)
    line = dag.load(root)
    names = [s.name for s in line]
    if asked is not None and asked not in names:
        raise InputError(f"no stage is called {asked!r}. The line: {' '.join(names)}")
    lacking = [(d, s.name) for s in line for d in s.deps if not d.startswith("artifacts/") and not (root / d).exists()]
    _check_data(root, {"ingest.data": getattr(typed.get("ingest"), "data", "")})
    if lacking:
        told = [f"  - {dep} is not there; {name} reads it" for dep, name in lacking]
        raise InputError("\n".join(["Put these where they are expected, or name others in params.yaml:", *told]))
    return f"params.yaml: no mistakes. Project {getattr(typed['run'], 'name', '')}, {len(line)} stages."


def _check_data(root: Path, named: dict[str, str]) -> None:
    """What DVC would stumble over, or not see.

    Raises:
        InputError: with the key and every reason.
    """
    from components.contracts import InputError

    for key, value in named.items():
        if not value:
            continue
        from components import watched

        data = (root / value).resolve()
        if root.resolve().is_relative_to(data):
            raise InputError(
                f"{key}: {value} holds this project; DVC would watch its own files. Name the data's folder"
            )
        if data.is_relative_to((root / "artifacts").resolve()):
            raise InputError(f"{key}: {value} lies in artifacts/, which belongs to the stages. Put the data elsewhere")
        problems = watched.problems(data)
        if problems:
            raise InputError("\n".join([f"{key}: DVC cannot watch all of it:", *(f"  - {p}" for p in problems)]))


def _nothing_to_do(root: Path) -> bool:
    from pipelines import dag, dvc_cli

    if dvc_cli.stale(root):
        return False
    print(f"Nothing to do: all {len(dag.load(root))} stages are unchanged since dvc.lock was written.\n")
    summary(root)
    return True


def _last_stop(root: Path, stage: str) -> list[str]:
    """A line on how the stage ended when it last ran, if it did not end well."""
    from components.contracts import read_json

    try:
        last = read_json(root / "reports" / stage / "status.json")
        how = {1: "with a fault", 2: "with a mistake", 3: "refused", 130: "interrupted"}.get(last["exit_code"])
        return [f"{'':10} last time it ended {how}: {last['told'].splitlines()[0]}\n"] if how else []
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _end(root: Path, code: int, told: str) -> int:
    print()
    summary(root)
    if code:
        print(f"\n{told}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m pipelines",
        description="A production line for transfer learning. Run it in a project; params.yaml says what.",
        epilog=f"first run:  python -m pipelines check && python -m pipelines repro\n\n{CODES}",
        formatter_class=plain,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    here = Path.cwd()

    def command(
        name: str, does: Callable[[argparse.Namespace], int], told: str, more: str = ""
    ) -> argparse.ArgumentParser:
        epilog = (more or "example:\n  python -m pipelines " + name) + "\n\n" + CODES
        one = commands.add_parser(name, help=told, description=told, epilog=epilog, formatter_class=plain)
        one.set_defaults(does=does)
        return one

    one = command("run", lambda a: run(here, a.record), "the whole line as the Prefect flow `train`", RUN)
    one.add_argument("--record", action="store_true", help="record a flow run even if nothing is stale")
    one = command("repro", lambda a: repro(here, a.stage), "the whole line through DVC alone, and a summary", REPRO)
    one.add_argument("stage", nargs="?", metavar="STAGE", help="only this stage; what it reads is taken as it is")
    command("check", lambda _: check(here), "read params.yaml and tell every mistake at once; runs nothing")
    command("status", lambda _: status(here), "which stages would run now, and why")
    command("summary", lambda _: summary(here), "ten lines on what the last run came to")
    one = command(
        "new",
        lambda a: new(here, Path(a.folder), a.data, a.example),
        "make another project around your data",
        NEW,
    )
    one.add_argument("folder", metavar="DIR", help="where the project is made")
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="X", help="a folder of class folders, or a CSV, JSONL or Parquet table")
    source.add_argument("--example", metavar="NAME", help="a folder of examples/")
    one = command(
        "reproduce", lambda a: reproduce(here, a), "make the model of a bundle again; is it the same?", REPRODUCE
    )
    one.add_argument("bundle", metavar="BUNDLE", help="the folder of a bundle that this project made")
    one.add_argument(
        "--in", dest="place", metavar="DIR", help="make the workspace there, not in the folder of the system"
    )
    one.add_argument("--keep", action="store_true", help="leave the workspace, to look at what was made")
    one.add_argument("--anyway", action="store_true", help="rebuild even if it is known that something differs")
    one = command(
        "predict",
        lambda a: predict(here, a.bundle, a.words, a.key, a.unsigned),
        "label files with a bundle, once it was verified",
        PREDICT,
    )
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust")
    one.add_argument("--unsigned", action="store_true", help="take a bundle that is not released")
    one.add_argument("bundle", metavar="BUNDLE", help="a folder, a .tar, or a commit or tag of this project")
    one.add_argument("words", metavar="FILE...", nargs=argparse.REMAINDER, help="files, and options of its predict.py")
    told = "what differs between two bundles; does it matter?"
    one = command("diff", lambda a: diff(here, a.a, a.b, a.json, a.measure), told, DIFF)
    one.add_argument("a", metavar="A")
    one.add_argument("b", metavar="B")
    one.add_argument("--json", action="store_true", help="print all of it as JSON")
    one.add_argument("--measure", action="store_true", help="measure both on this machine too; takes half a minute")
    one = command(
        "audit",
        lambda a: audit(here, a.bundle, a.file, a.weights, a.json),
        "where a model comes from; which models rest on a file",
        AUDIT,
    )
    one.add_argument("bundle", metavar="BUNDLE", nargs="?", help="as for diff; by default the one at hand")
    which = one.add_mutually_exclusive_group()
    which.add_argument("--file", metavar="PATH", help="which models used this file?")
    which.add_argument("--weights", metavar="SHA256", help="which models rest on these weights? at least 8 digits")
    one.add_argument("--json", action="store_true", help="print all of it as JSON")
    _add_releases(command, here)
    command("list", lambda _: show_plugins(), "every family of plugins, with a sentence on each plugin")
    return parser


def _add_releases(command: Callable[..., argparse.ArgumentParser], here: Path) -> None:
    """The commands around a signed bundle."""
    one = command("keygen", lambda a: keygen(a.folder), "make a key pair for signing releases", KEYGEN)
    one.add_argument("--folder", metavar="DIR", help="where the keys are put")
    one = command(
        "release", lambda a: release(here, a.key, a.version, a.unclean), "sign the bundle as a version", RELEASE
    )
    one.add_argument("--key", metavar="FILE", help="private key; by default the one that keygen made")
    one.add_argument("--version", metavar="V", help="such as 1.2.0; by default the next")
    one.add_argument("--unclean", action="store_true", help="release what could not be made again from a commit")
    one = command("verify", verify, "check a bundle offline: every file, the signature, the schemas", VERIFY)
    one.add_argument("bundle", metavar="BUNDLE", help="the folder of a bundle, or its .tar")
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust; by default your own")
    one.add_argument("--unsigned", action="store_true", help="take a bundle that is not released")
    one.add_argument("--at-least", metavar="VERSION", default="0.0.0", help="refuse an older one")
    one.add_argument("--completeness", action="store_true", help="print the BOM field by field")


def main(words: list[str] | None = None) -> int:
    """Returns the exit code; a mistake of the user never shows a traceback."""
    arguments = _parser().parse_args(words)
    from components.contracts import InputError, Refused

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what we started is ended
    try:
        code: int = arguments.does(arguments)
        sys.stdout.flush()
        return code
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except Refused as error:
        print(error, file=sys.stderr)
        return 3
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        from pipelines.stage import REMEDIES

        remedy = REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        print(f"{error.strerror} ({error.filename or Path.cwd()}): {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; run again to go on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
