from __future__ import annotations

import pytest

from components import holm


def test_golden_values_from_the_definition() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1, then made monotone
    assert holm.adjust([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_one_test_stays_and_none_is_fine() -> None:
    assert holm.adjust([0.3]) == [0.3]
    assert holm.adjust([]) == []


def test_nothing_exceeds_one() -> None:
    assert holm.adjust([0.6, 0.9, 0.5]) == [1.0, 1.0, 1.0]
