"""The soak, small. All of it: python tests/chaos/soak.py"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import soak


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_runs_with_faults_leave_nothing_behind(tmp_path: Path) -> None:
    rows = soak.soak(tmp_path / "mini", num=20, pace=8)
    print(soak.table(rows))
    assert [row for row in rows if not row[3]] == []
