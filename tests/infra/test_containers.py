"""Dockerfile, compose and Kubernetes: what their linters and schemas say, and what of safety can be read from them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import fetched
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "infra" / "docker" / "Dockerfile"
COMPOSE = ROOT / "infra" / "compose" / "compose.yaml"
KUBERNETES = ROOT / "infra" / "kubernetes"
TEMPLATE = KUBERNETES / "base-job-template.json"
BIN = Path(sys.executable).parent
QUIET = {
    "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false", "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}  # fmt: skip
"""Of Evidently, DVC, Great Expectations, Hugging Face and Prefect."""


def read(path: Path) -> list[Any]:
    return [one for one in YAML(typ="safe").load_all(path) if one]


# --- Docker ---


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "hadolint", path], capture_output=True, text=True, check=False, timeout=60)


def test_hadolint_finds_nothing() -> None:
    done = hadolint(DOCKER)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKER.read_text().replace("SHELL [", "RUN pip install torch\nSHELL ["))
    assert hadolint(path).returncode != 0


def test_images_are_pinned_hashed_and_not_root() -> None:
    text = DOCKER.read_text()
    assert re.search(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.M)
    sources = re.findall(r"^FROM (\S+)", text, re.M)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.M))
    assert set(sources) - stages == {"${BASE_IMAGE}"}
    installs = re.findall(r"(?:uv pip|-m pip) (?:install|sync).*", text)
    assert len(installs) >= 4
    assert all("--require-hashes" in line for line in installs)
    for target in ("server", "worker", "line"):
        body = text.split(f"FROM base AS {target}\n")[1].split("\nFROM ")[0]
        assert re.search(r"^USER 10001:10001$", body, re.M), target
        assert "ENTRYPOINT" in body, target
    assert {"server", "worker", "cpu", "cuda"} <= stages
    assert not re.search(r"(?i)(password|token|secret)\s*=", text)


def test_the_build_sees_locks_alone() -> None:
    told = (DOCKER.parent / "Dockerfile.dockerignore").read_text().split("\n")
    kept = [line[1:] for line in told if line.startswith("!")]
    assert "*" in told
    assert kept == ["requirements.lock", "infra/uv.lock.txt", "infra/extras/*.lock"]


def test_the_server_does_not_start_without_a_password() -> None:
    entry = json.loads(re.search(r"^ENTRYPOINT (\[.*PREFECT_SERVER_API_AUTH.*\])$", DOCKER.read_text(), re.M)[1])  # type: ignore[index]
    without = subprocess.run([*entry, "echo", "up"], env={}, capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "must be set" in without.stderr
    environment = {"PREFECT_SERVER_API_AUTH_STRING": "a:b"}
    given = subprocess.run([*entry, "/bin/echo", "up"], env=environment, capture_output=True, text=True, check=False)
    assert given.stdout == "up\n"


def test_prefect_of_the_images_is_the_locks() -> None:
    """The server's image takes its version out of the lock; the others are made of the lock."""
    asked = re.search(r"grep -oE '([^']+)' requirements.lock > server.in", DOCKER.read_text())
    assert asked
    found = re.findall(asked[1], (ROOT / "requirements.lock").read_text(), re.M)
    assert found == [f"prefect=={metadata.version('prefect')}"]
    for path in [COMPOSE, *KUBERNETES.glob("*")]:
        assert "prefecthq/prefect" not in path.read_text(), path


# --- what is installed besides the lock ---


def test_extras_are_hashed_and_go_with_the_lock() -> None:
    sys.path.insert(0, str(ROOT / "infra" / "extras"))
    try:
        import make_locks
    finally:
        sys.path.pop(0)
    lock = (ROOT / "requirements.lock").read_text()
    assert set(make_locks.EXTRAS) == {path.stem for path in (ROOT / "infra" / "extras").glob("*.lock")}
    for name in make_locks.EXTRAS:
        text = (ROOT / "infra" / "extras" / f"{name}.lock").read_text()
        entries = re.findall(r"^[\w.-]+==", text, re.M)
        assert entries
        assert len(make_locks.names(text)) == len(entries), f"{name}: an entry without a hash"
        assert not make_locks.names(text) & make_locks.names(lock), f"{name}: make lock"
        assert "://" not in text


# --- compose ---


def services() -> dict[str, Any]:
    found: dict[str, Any] = read(COMPOSE)[0]["services"]
    return found


def faults(text: str) -> list[str]:
    """What of safety a compose file lacks."""
    value = YAML(typ="safe").load(text)
    told = [f"no default for a secret: ${{{name}}}" for name in re.findall(r"\$\{(\w+)(?!\w*:\?)[^}]*\}", text)]
    for name, one in value["services"].items():
        told += [f"{name}: port {p} on every address" for p in one.get("ports", []) if not p.startswith("127.0.0.1:")]
        if "build" not in one and not re.search(r"@(sha256:[0-9a-f]{64}|\$\{STORE_DIGEST:\?[^}]*\})$", one["image"]):
            told.append(f"{name}: {one['image']} is not pinned by digest")
        for key, wanted in (
            ("read_only", True), ("cap_drop", ["ALL"]), ("security_opt", ["no-new-privileges:true"]),
        ):  # fmt: skip
            if one.get(key) != wanted:
                told.append(f"{name}: {key}")
        if "limits" not in one.get("deploy", {}).get("resources", {}):
            told.append(f"{name}: no limits")
        if one.get("privileged") or "docker.sock" in str(one):
            told.append(f"{name}: it may do everything")
    return told


def test_compose_fits_its_schema() -> None:
    import jsonschema

    try:
        known = fetched.schema("compose-spec")
    except fetched.Unavailable as error:
        pytest.skip(str(error))
    validator = jsonschema.validators.validator_for(known)(known)
    assert [one.message for one in validator.iter_errors(read(COMPOSE)[0])] == []
    assert list(validator.iter_errors({"services": {"a": {"prots": []}}}))


def test_compose_is_closed() -> None:
    assert faults(COMPOSE.read_text()) == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"127.0.0.1:4200:4200"', '"4200:4200"', "every address"),
        ("${STORE_SECRET_KEY:?set it in infra/compose/.env}", "${STORE_SECRET_KEY:-secret}", "no default"),
        ("read_only: true", "read_only: false", "read_only"),
        ("@sha256:84560e3b9c6874893fc4e2854f5dc3e7c1a37bc9d1dfd7a8c641310ae22ba5ad", "", "not pinned"),
        ("cap_drop: [ALL]", "cap_drop: []", "cap_drop"),
    ],
)
def test_what_opens_compose_is_noticed(before: str, after: str, told: str) -> None:
    text = COMPOSE.read_text()
    assert before in text
    assert any(told in one for one in faults(text.replace(before, after)))


def test_compose_asks_for_every_secret_of_its_example_and_no_other() -> None:
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    example = (COMPOSE.parent / ".env.example").read_text()
    assert asked == set(re.findall(r"^(\w+)=$", example, re.M))
    assert not re.search(r"^\w+=.", example, re.M), "a default password"
    ignored = subprocess.run(["git", "check-ignore", "-q", "infra/compose/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_a_container_that_is_made_anew_is_the_same_host() -> None:
    """By its name leases tell whose process is gone."""
    built = {name: one for name, one in services().items() if "build" in one}
    assert {name: one.get("hostname") for name, one in built.items()} == {"server": "server", "worker": "worker"}


def test_the_server_asks_for_a_password_and_everything_is_waited_for() -> None:
    server = services()["server"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == services()["worker"]["environment"]["PREFECT_API_AUTH_STRING"]
    long_lived = {n for n, s in services().items() if s.get("restart") != "no" and "healthcheck" not in s}
    assert long_lived == {"server"}, "the server's is in its image"
    assert services()["database"]["networks"] == ["database"]
    assert read(COMPOSE)[0]["networks"]["database"] == {"internal": True}


# --- Kubernetes ---


def manifests() -> list[tuple[str, Any]]:
    files = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [(f"{path.name}: {one['kind']} {one['metadata']['name']}", one) for path in files for one in read(path)]


def filled() -> dict[str, Any]:
    """The Job that the worker makes, with the template's defaults, and with a GPU."""
    template = json.loads(TEMPLATE.read_text())
    values = {name: one.get("default") for name, one in template["variables"]["properties"].items()}
    values |= {"gpus": 1, "name": "a-run", "command": ["prefect", "flow-run", "execute"], "labels": {"a": "b"}}
    values["env"] = [{"name": name, "value": value} for name, value in values["env"].items()]

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: fill(v) for k, v in value.items()}
        if isinstance(value, list):
            return [fill(v) for v in value]
        found = re.fullmatch(r"\{\{ (\w+) \}\}", value) if isinstance(value, str) else None
        if found:
            return values[found[1]]
        return re.sub(r"\{\{ (\w+) \}\}", lambda m: str(values[m[1]]), value) if isinstance(value, str) else value

    job: dict[str, Any] = fill(template["job_configuration"]["job_manifest"])
    return job


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in [*manifests(), ("the template's Job", filled())]:
        if one["kind"] in ("Deployment", "Job"):
            yield name, one["spec"]["template"]["spec"]


def test_manifests_fit_the_schemas_of_kubernetes() -> None:
    import kubernetes_validate

    for _, one in [*manifests(), ("", filled())]:
        kubernetes_validate.validate(one, "1.37", strict=True)
    wrong = json.loads(json.dumps(filled()))
    wrong["spec"]["template"]["spec"]["contaners"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_every_pod_is_restricted() -> None:
    for name, pod in pods():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for one in pod["containers"]:
            inner = one["securityContext"]
            assert inner["readOnlyRootFilesystem"] is True, name
            assert inner["allowPrivilegeEscalation"] is False, name
            assert inner["capabilities"] == {"drop": ["ALL"]}, name
            assert "limits" in one["resources"], name
            writable = {mount["mountPath"] for mount in one["volumeMounts"]}
            assert {"/home/graftline", "/tmp"} <= writable, name
        assert pod.get("serviceAccountName") == "worker" or pod["automountServiceAccountToken"] is False, name
    namespace = next(one for _, one in manifests() if one["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_secrets_are_references() -> None:
    for name, pod in pods():
        for one in (e for c in pod["containers"] for e in c.get("env", [])):
            if re.search("AUTH_STRING$|PASSWORD|SECRET_ACCESS|API_KEY$|TOKEN", one["name"]):
                assert "secretKeyRef" in one.get("valueFrom", {}), f"{name}: {one['name']}"
    assert not any(one["kind"] == "Secret" for _, one in manifests())


def test_the_worker_may_start_jobs_here_and_nothing_else() -> None:
    kinds = {one["kind"] for _, one in manifests()}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    rules = next(one for _, one in manifests() if one["kind"] == "Role")["rules"]
    may = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not {resource for resource, _ in may} & {"*", "secrets", "pods/exec", "roles"}
    assert {resource for resource, verb in may if verb not in ("get", "list", "watch")} == {"jobs"}


def test_nothing_is_reached_that_is_not_named() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for _, one in manifests() if one["kind"] == "NetworkPolicy"}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {one["spec"]["type"] for _, one in manifests() if one["kind"] == "Service"} == {"ClusterIP"}


def test_the_template_has_every_variable_that_it_names_and_a_gpu() -> None:
    template = json.loads(TEMPLATE.read_text())
    named = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert named == set(template["variables"]["properties"])
    assert filled()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_kustomize_puts_it_together() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not on the PATH")
    done = subprocess.run([kubectl, "kustomize", KUBERNETES], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    made = [one for one in YAML(typ="safe").load_all(done.stdout) if one]
    assert {one["metadata"].get("namespace", "graftline") for one in made} == {"graftline"}
    held = {one["metadata"]["name"] for one in made if one["kind"] == "ConfigMap"}
    asked = {v["configMap"]["name"] for one in made if one["kind"] == "Deployment"
             for v in one["spec"]["template"]["spec"]["volumes"] if "configMap" in v}  # fmt: skip
    assert held == asked


# --- nothing calls home ---


def test_telemetry_is_off_in_all_that_is_started() -> None:
    image = dict(re.findall(r"^ {4}([A-Z_]+)=(\S+?)(?: \\)?$", DOCKER.read_text(), re.M))
    assert QUIET.items() <= image.items()
    for name in ("server", "worker"):
        assert QUIET.items() <= services()[name]["environment"].items(), name
    template = json.loads(TEMPLATE.read_text())["variables"]["properties"]["env"]["default"]
    assert QUIET.items() <= template.items()
    for name, pod in pods():
        for one in (c for c in pod["containers"] if name.startswith(("server", "worker"))):
            told = {e["name"]: e.get("value") for e in one["env"]}
            assert told["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false", name
            assert told["DO_NOT_TRACK"] == "1", name
    assert "-master.telemetry=false" in services()["store"]["command"]
    gitlab = read(ROOT / "infra" / "ci" / "gitlab.yml")[0]["variables"]
    assert QUIET.items() <= gitlab.items()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        flow = read(path)[0]
        if any(word in path.read_text() for word in ("ci-line", "ci-retrain")):
            assert QUIET.items() <= flow["env"].items(), path.name
