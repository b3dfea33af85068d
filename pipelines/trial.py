"""The infra check of a promotion on this machine: a fresh process loads the bundle's model and answers its examples."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

from components.contracts import Refused
from pipelines import processes

SECONDS = 300.0
_FORGOTTEN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
_LOAD = (
    "import sys, onnxruntime\n"
    "onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']).get_outputs()[0].name"
)


def answers(folder: Path) -> str:
    """What was seen. Only of a bundle that was verified: its own predict.py is run.

    Raises:
        Refused: it does not load, or does not give its own examples again.
    """
    folder = folder.absolute()
    asked = (folder / "example").is_dir()
    own = [sys.executable, "-B", str(folder / "predict.py"), "--check"]
    command = own if asked else [sys.executable, "-B", "-c", _LOAD, str(folder / "model.onnx")]
    kept = {name: value for name, value in os.environ.items() if name not in _FORGOTTEN}
    try:
        code, _, complaint = processes.quietly(command, folder.parent, environment=kept, seconds=SECONDS)
    except TimeoutError:
        raise Refused(f"{folder.name} gave no answer here within {SECONDS:.0f} s, so it is not made live") from None
    if code:
        told = "\n".join(f"  {line}" for line in complaint.splitlines()[-5:])
        raise Refused(f"{folder.name} does not load and answer here as it should (exit code {code}):\n{told}")
    what = "gives its examples again" if asked else "loads (it has no examples to answer)"
    return f"in a fresh process it {what}, by {_runtime(folder)}"


def _runtime(folder: Path) -> str:
    here = metadata.version("onnxruntime")
    try:
        lines = (folder / "requirements.txt").read_text("utf-8").split()
        theirs = next((line.partition("==")[2] for line in lines if line.startswith("onnxruntime==")), "")
    except (OSError, UnicodeError):
        theirs = ""
    return f"onnxruntime {here}" + (f" (it was made with {theirs})" if theirs not in ("", here) else "")
