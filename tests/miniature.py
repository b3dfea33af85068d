"""A whole project in miniature: five tiny stages on the real machinery, so that a run takes seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
MACHINERY = ("watched", "contracts", "job", "lineage", "params", "plugins", "requirements_lock", "tied")

STAGES = {
    "ingest": '''
"""Writes the mean of the numbers."""
import os, sys, time
from components import params
from components.contracts import InputError, write_json
NEEDS = ()
class Params(params.Params):
    data: str
    pause: float
    """Seconds that it takes."""
def run(params, job):
    job.report("pid").write_text(str(os.getpid()))
    print("ingest is reading", file=sys.stderr)
    for _ in range(int(params.pause * 20)):
        time.sleep(0.05)
    text = (job.root / params.data / "numbers.txt").read_text()
    if not text.strip():
        raise InputError("ingest.data: numbers.txt is empty")
    numbers = [float(word) for word in text.split()]
    write_json(job.out("mean.json"), {"mean": sum(numbers) / len(numbers)})
    return {"num_used": float(len(numbers))}
''',
    "gate": '''
"""Judges the mean."""
from components import params
from components.contracts import Rule, Verdict, read_json, write_json
NEEDS = ("ingest",)
class Params(params.Params):
    at_least: float
def run(params, job):
    mean = read_json(job.source("ingest", "mean.json"))["mean"]
    passed = mean >= params.at_least
    name = f"mean at least {params.at_least}"
    rule = Rule(name, passed, mean, params.at_least, mean - params.at_least, "too low")
    write_json(job.out("verdict.json"), Verdict("gate", passed, (rule,)))
    return {"passed": float(passed)}
''',
    "report": '''
"""Tells the verdict, whatever it was."""
from components import params
from components.contracts import read_json
NEEDS = ("gate",)
class Params(params.Params):
    title: str
def run(params, job):
    passed = read_json(job.source("gate", "verdict.json", even_if_refused=True))["passed"]
    job.out("index.html").write_text(f"<h1>{params.title}: {passed}</h1>")
    return {"num_pages": 1.0}
''',
    "export": '''
"""Made only if the gate passed."""
from components import params
from components.contracts import read_json
NEEDS = ("gate",)
class Params(params.Params):
    suffix: str
def run(params, job):
    job.source("gate", "verdict.json")
    if params.suffix == "fault":
        raise RuntimeError("a defect of the stage")
    job.out("model.txt").write_text("model" + params.suffix)
    return {"size_mb": 0.1}
''',
    "handoff": '''
"""Wraps what export made."""
from components import params
NEEDS = ("export",)
class Params(params.Params):
    note: str
def run(params, job):
    job.out("bundle.txt").write_text(job.source("export", "model.txt").read_text() + params.note)
    return {"num_files": 1.0}
''',
}  # fmt: skip

OUTS = {
    "ingest": "mean.json",
    "gate": "verdict.json",
    "report": "index.html",
    "export": "model.txt",
    "handoff": "bundle.txt",
}
DEPS = {
    "ingest": ["data", "components/job.py"],
    "gate": ["artifacts/ingest/mean.json"],
    "report": ["artifacts/gate/verdict.json"],
    "export": ["artifacts/gate/verdict.json"],
    "handoff": ["artifacts/export/model.txt"],
}
PARAMS = """
run:
  {name: mini, seed: 1, task: image_classification, decision: single_label, device: cpu, threads: 1,
   instruction_set: native}
ingest:
  data: data
  pause: 0
gate:
  at_least: 1.0
report:
  title: Result
export:
  suffix: ".v1"
handoff:
  note: "."
"""


def _dvc_yaml() -> str:
    lines = ["stages:"]
    for name in STAGES:
        lines += [
            f"  {name}:",
            f"    cmd: python -m pipelines.stage {name}",
            f"    params: [{name}, run]",
            "    deps:",
        ]
        lines += [f"      - {d}" for d in [*DEPS[name], f"components/{name}/stage.py"]]
        lines += [
            "    outs:",
            f"      - artifacts/{name}/{OUTS[name]}",
            f"      - artifacts/{name}/lineage.json",
        ]
        lines += ["    metrics:", f"      - artifacts/{name}/metrics.json: {{cache: false}}"]
    return "\n".join(lines) + "\n"


def call(root: Path, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, with this interpreter as `python`."""
    return subprocess.run(
        command, cwd=root, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def environment() -> dict[str, str]:
    """The environment of a shell with the project's .venv activated."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def line(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m pipelines ...` in a project."""
    return call(root, sys.executable, "-m", "pipelines", *arguments)


def turn_knob(root: Path, before: str, after: str) -> None:
    """Change params.yaml."""
    path = root / "params.yaml"
    text = path.read_text("utf-8")
    assert before in text
    path.write_text(text.replace(before, after), "utf-8")


def commit(root: Path) -> None:
    """Commit everything."""
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    commit_staged(root)


def commit_staged(root: Path) -> None:
    """Commit what is staged."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *who, "commit", "--quiet", "-m", "state"], cwd=root, check=True)


def make(root: Path) -> None:
    """Write the project and commit it."""
    for name in MACHINERY:
        target = root / "components" / f"{name}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "components" / f"{name}.py", target)
    for family, name in (("tasks", "image_classification"), ("decisions", "single_label")):
        (root / "components" / family).mkdir()
        (root / "components" / family / f"{name}.py").write_text('"""A plugin. With a card."""\n')
    for name, text in STAGES.items():
        (root / "components" / name).mkdir()
        (root / "components" / name / "stage.py").write_text(text.lstrip())
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    summary = """def summarise(root):\n    return [f"Summary of {root.name}"]\n"""
    (root / "pipelines" / "summary.py").write_text(summary)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / ".dvc").mkdir()
    shutil.copy(REPOSITORY / ".dvc" / "config", root / ".dvc" / "config")
    shutil.copy(REPOSITORY / ".dvc" / ".gitignore", root / ".dvc" / ".gitignore")
    (root / "data").mkdir()
    (root / "data" / "numbers.txt").write_text("1 2 3\n")
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text(_dvc_yaml())
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    commit(root)
