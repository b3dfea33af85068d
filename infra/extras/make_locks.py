"""Writes NAME.lock beside this file: what each extra needs beyond requirements.lock, by hash; `make lock` calls it.

They are installed with requirements.lock as constraints, so that nothing of the line changes its version:
uv pip install --require-hashes -r infra/extras/dvc-s3.lock -c requirements.lock
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE.parent.parent / "requirements.lock"
EXTRAS = {
    "dvc-s3": "dvc[s3]", "dvc-gs": "dvc[gs]", "dvc-azure": "dvc[azure]",
    "prefect-kubernetes": "prefect-kubernetes", "prefect-aws": "prefect-aws", "prefect-gcp": "prefect-gcp",
    "prefect-azure": "prefect-azure",
}  # fmt: skip
"""Name -> what is asked for: DVC's remotes, and Prefect's workers for platforms."""
_ENTRY = re.compile(r"^([\w.-]+)==[^\n]*\n(?: {4}--hash=[^\n]*\n)+", re.M)


def names(text: str) -> set[str]:
    """The packages of a lock."""
    return {entry[1] for entry in _ENTRY.finditer(text)}


def beyond(compiled: str, lock: str) -> str:
    """The entries of one lock whose packages the other lacks."""
    there = names(lock)
    return "".join(entry[0] for entry in _ENTRY.finditer(compiled) if entry[1] not in there)


def main() -> int:
    """Every lock."""
    options = ["--quiet", "--generate-hashes", "--python-version", "3.11"]
    options += ["--no-emit-index-url", "--no-annotate", "--no-header"]
    for name, asked in EXTRAS.items():
        command = ["uv", "pip", "compile", *options, "-c", str(LOCK), "-"]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: {done.stderr}", file=sys.stderr)
            return 1
        (HERE / f"{name}.lock").write_text(beyond(done.stdout, LOCK.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
