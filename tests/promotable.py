"""Projects with small signed releases, made in milliseconds, that may go live: their model is a script that agrees."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import signed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.contracts import write_json
from components.handoff import provenance, signing
from pipelines import blessings

REPOSITORY = Path(__file__).parent.parent
NAME = "net"


def rule(name: str, metric: str = "", value: float = 1.0, limit: float = 0.9, passed: bool = True) -> dict[str, Any]:
    return {"name": name, "passed": passed, "value": value, "limit": limit, "margin": value - limit, "why": "",
            "metric": metric, "side": "at_least" if metric else ""}  # fmt: skip


def evaluation(accuracy: float = 0.95, half: float = 0.02) -> dict[str, Any]:
    """Of a model that bears the three blessings."""
    interval = {"value": accuracy, "low": accuracy - half, "high": accuracy + half, "level": 0.95}
    verdicts = [
        {"stage": "validate", "passed": True, "rules": [rule("duplicates")]},
        {
            "stage": "gate",
            "passed": True,
            "rules": [
                rule("accuracy", "evaluate.accuracy_low", accuracy),
                rule("groups", "bias.worst_group_accuracy", accuracy),
            ],
        },
        {"stage": "export", "passed": True, "rules": [rule(blessings.QUERIED, value=0.0, limit=0.0)]},
    ]
    outputs = {name: {"relative": 1e-6} for name in ("probabilities", "embedding")}
    parity = {"num_samples": 270, "flips": 0, "outputs": outputs}
    limits = {"limits": dict.fromkeys(outputs, 1e-5), "max_flips": 0}
    return {
        "variant": "fp32",
        "quality": {"shipped": {"accuracy": interval}, "float32": {"accuracy": interval}},
        "groups": {"groups": [{"grouping": "site", "group": "a", "num": 90, "small": False, "measures": {}}]},
        "parity": {"shipped": parity, "float32": {**parity, **limits}},
        "verdicts": verdicts,
    }


def bundle(folder: Path, seed: int = 0, told: dict[str, Any] | None = None, predict: str = "", **origin: Any) -> Path:
    """As the stage leaves it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "example").mkdir(parents=True)
    (folder / "example/expected.json").write_text("{}")
    (folder / "model.onnx").write_text(f"model {seed}")
    (folder / "predict.py").write_text(predict or "import sys\nsys.exit(sys.argv[1:] != ['--check'])\n")
    if told != {}:
        write_json(folder / "evaluation.json", told or evaluation())
    write_json(folder / "provenance.json", provenance.statement(replace(signed.origin(), **origin)))
    signed.sum_up(folder)
    return folder


def release(root: Path, version: str, key: int = 0, name: str = NAME, tar: bool = False, **made: Any) -> Path:
    """releases/NAME-VERSION, signed; its git tag is `tag`'s matter."""
    target = root / "releases" / f"{name}-{version}"
    target.parent.mkdir(exist_ok=True)
    source = bundle(root.parent / f".making-{root.name}", seed=hash_of(version), **made)
    signing.seal(source, target, signed.private_key(key), name, version)
    if tar:
        signing.write_tar(target, target.name, target.with_name(f"{target.name}.tar"))
    return target


def hash_of(version: str) -> int:
    return int.from_bytes(version.encode(), "big")


def own_key(config: Path, key: int = 0) -> Path:
    """The public key of this user, where `bundles.own_keys` looks: `config` is XDG_CONFIG_HOME."""
    place = config / "graftline/release.pub.pem"
    place.parent.mkdir(parents=True, exist_ok=True)
    public = signed.private_key(key).public_key()
    place.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return place


def project(root: Path, git: bool = True) -> Path:
    """A project with its settings of operation; with `git`, a commit and an identity."""
    (root / "infra").mkdir(parents=True)
    shutil.copy(REPOSITORY / "infra/operations.yaml", root / "infra/operations.yaml")
    (root / "params.yaml").write_text(f"run: {{name: {NAME}}}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".gitignore").write_text("/releases\n/deployed\n/.graftline\n")
    if git:
        call(root, "init", "-q")
        for key, value in (("user.name", "test"), ("user.email", "test@localhost"), ("commit.gpgsign", "false")):
            call(root, "config", key, value)
        commit(root)
    return root


def call(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path, *versions: str) -> None:
    """A commit, with the tags of these versions as `release` makes them."""
    call(root, "add", "-A")
    call(root, "commit", "-q", "--allow-empty", "-m", "x")
    for version in versions:
        call(root, "tag", "-a", "-m", "x", f"{NAME}@v{version}")


def set_operation(root: Path, before: str, after: str) -> None:
    path = root / "infra/operations.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
