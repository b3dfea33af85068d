"""How fast verify.py checks a bundle of 100 MB: `python tests/benchmarks/verify.py [MB]`.

Prints MB/s of a folder and of its tar, the best and the median of five, in a process of its own, start included.
Goal: at least 100 MB/s. 2026-11-21, on two cores that were busy: folder 230, tar 684 (medians).
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import signed  # noqa: E402  found by the line above

from components.handoff import signing, verify_bundle  # noqa: E402


def main(megabytes: int = 100) -> None:
    """Make the bundle, check it, tell."""
    with tempfile.TemporaryDirectory() as place:
        source = signed.unsigned(Path(place) / "source")
        block = random.Random(0).randbytes(1_000_000)
        with (source / "model.onnx").open("wb") as model:
            for _ in range(megabytes):
                model.write(block)
        signed.sum_up(source)
        folder = Path(place) / "net-1.0.0"
        signing.seal(source, folder, signed.private_key(), "net", "1.0.0")
        tar = Path(place) / "net-1.0.0.tar"
        signing.write_tar(folder, folder.name, tar)
        public = signed.private_key().public_key()
        key = Path(place) / "public.pem"
        key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        for bundle in (folder, tar):
            seconds = []
            for _ in range(5):
                start = time.perf_counter()
                command = [sys.executable, "-I", verify_bundle.__file__, "--key", key, bundle]
                subprocess.run(command, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
            best, middle = megabytes / min(seconds), megabytes / statistics.median(seconds)
            print(f"{bundle.name:16} best {best:6.0f} MB/s, median {middle:6.0f} MB/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
