"""The file of what training has come to, written by several at once."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from components.finetune import live
from components.job import Job

ROOT = Path(__file__).parents[3]
WRITES = """
import sys
from pathlib import Path
from components.finetune import live
from components.job import Job
job = Job.at(Path(sys.argv[1]))
for epoch in range(150):
    if epoch % 10 == 9:
        live.begin(job)
    live.write(job, sys.argv[2], [{"epoch": epoch}])
"""


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path), name], cwd=ROOT, stderr=subprocess.PIPE)
            for name in ("one", "two")]  # fmt: skip
    said = [one.communicate(timeout=60)[1].decode() for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    place = Job.at(tmp_path).report(live.NAME)
    with place.open() as handle:
        assert "149" in [row["epoch"] for row in csv.DictReader(handle)]
    assert [one.name for one in place.parent.iterdir()] == [live.NAME]
