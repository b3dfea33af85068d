"""The card and the Annex IV view: what files say, from where, and what is left for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from components.contracts import read_json
from components.handoff import annex

NUMBERS = (*(f"1({c})" for c in "abcdefgh"), *(f"2({c})" for c in "abcdefgh"), *"3456789")
FROM_FILES = {"1(a)", "1(c)", "1(d)", "1(e)", "1(g)", "1(h)", *(f"2({c})" for c in "abcdegh"), "3", "9"}
PAGES = ("card.md", "annex_iv.md")


@pytest.fixture
def bundle(finished: Path) -> Path:
    return finished / "artifacts/handoff/bundle"


@pytest.fixture
def page(bundle: Path) -> str:
    return (bundle / "annex_iv.md").read_text()


def _sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## ", page, flags=re.M)[1:]
    return {part.split(" ", 1)[0]: part for part in parts}


def test_every_item_of_the_annex_is_there_in_order(page: str) -> None:
    assert tuple(_sections(page)) == NUMBERS == tuple(item.number for item in annex.ITEMS)
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (yes|no) \|$", page, flags=re.M)
    assert tuple(row[0] for row in rows) == NUMBERS


def test_what_a_machine_can_tell_is_told_with_its_file(page: str) -> None:
    for number, text in _sections(page).items():
        told = [line for line in text.splitlines() if line.startswith("- ") and "Human to fill" not in line]
        assert bool(told) == (number in FROM_FILES), number
        assert all(re.search(r"\(`[\w./-]+`(, `[\w./-]+`)*\)$", line) for line in told), number


def test_the_rest_is_marked_for_people(page: str) -> None:
    for item in annex.ITEMS:
        assert ("**Human to fill:**" in _sections(page)[item.number]) == bool(item.left)
        assert item.left or item.tell, "nothing may be silent"
    left = [item.number for item in annex.ITEMS if item.left]
    assert len(left) == len(NUMBERS) - 1


@pytest.mark.parametrize("kind", ["finished", "finished_texts"])
@pytest.mark.parametrize("name", PAGES)
def test_it_helps_with_and_never_claims(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    text = (request.getfixturevalue(kind) / "artifacts/handoff/bundle" / name).read_text()
    assert not re.search(r"complian|conformant|certified|tamper-proof", text, flags=re.I)
    assert "helps" in text or name != "annex_iv.md"
    assert "{{" not in text
    assert "None" not in text


def test_figures_are_those_of_the_files(page: str, finished: Path, bundle: Path) -> None:
    sections = _sections(page)
    own = read_json(finished / "artifacts/export/export.json")["shipped"]["measures"]
    assert f"Accuracy of model.onnx on the test split: {own['accuracy']['value']:.4f}, 95% interval" in sections["2(g)"]
    assert f"of model.onnx: {own['ece']['value']:.4g})" in sections["2(e)"]
    rules = [rule for one in read_json(bundle / "evaluation.json")["verdicts"] for rule in one["rules"]]
    assert len(rules) >= 2
    assert f"{sum(rule['passed'] for rule in rules)} of {len(rules)} rules hold" in sections["2(g)"]
    assert "1 set aside (not_an_image: 1)" in sections["2(d)"]
    assert "licence apache-2.0" in sections["2(a)"]
    assert "accuracy by brightness: worst dark, gap 0.05, no evidence" in sections["3"]
    assert "1 of 2 groups are too small to be judged" in sections["3"]


def test_no_time_stands_in_what_is_tracked(bundle: Path) -> None:
    for name in PAGES:
        text = (bundle / name).read_text()
        assert not re.search(r"\b\d+(\.\d+)? ?(ms|milliseconds|seconds|samples/s)\b", text)
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def test_the_card_follows_the_hub(bundle: Path) -> None:
    card = (bundle / "card.md").read_text()
    for heading in (
        "Model Details", "Uses", "Bias, Risks, and Limitations", "How to Get Started with the Model",
        "Training Details", "Evaluation", "Technical Specifications", "Environmental Impact",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in card, heading
    assert card.count("**Human to fill:**") == 7
    assert "python -m pipelines diff A B --measure" in card


def test_what_was_forgotten_and_how_many_labels_are_saved_stand_in_the_card(bundle: Path) -> None:
    card = (bundle / "card.md").read_text()
    assert "\nWhat was forgotten for it? Some drift against the pretrained backbone.\n\n| run |" in card
    assert "| main | some drift | 0.71 | 0.83 |" in card
    assert "\nWith 15% of the labels it does better.\n\n| run |" in card
    assert "| main | 0.15 | 9 | 0.8 (0.7 to 0.9) |\n" in card


def test_every_group_stands_in_the_card_and_small_ones_are_marked(bundle: Path) -> None:
    card = (bundle / "card.md").read_text()
    assert "| brightness | dark | 30 | accuracy | 0.9 | 0.88 to 0.92 |  |" in card
    assert "| brightness | bright | 12 | accuracy | 0.9 | 0.88 to 0.92 | small: not judged |" in card


def test_of_very_many_groups_the_worst_are_shown() -> None:
    from components.handoff import facts

    groups = [
        {"grouping": "g", "group": str(n), "num": 30, "small": n < 5, "measures": {"accuracy": {"value": n / 100}}}
        for n in range(90)
    ]
    shown = facts._shown_groups(groups)
    assert [one["group"] for one in shown] == [str(n) for n in range(5, 5 + facts.MOST_GROUPS)]


def test_tables_are_tables(bundle: Path) -> None:
    """A table needs a blank line before it, and as many cells in each row as in its head."""
    for name in PAGES:
        lines = (bundle / name).read_text().splitlines()
        for before, head, rule in zip(lines, lines[1:], lines[2:]):
            if re.fullmatch(r"(\|-+)+\|", rule):
                assert before == "", (name, head)
        width = 0
        for line in lines:
            if not line.startswith("|"):
                width = 0
                continue
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert width in (0, cells), (name, line)
            width = cells


def test_what_the_owner_stated_stands_under_its_item_as_stated_by_him() -> None:
    item = next(one for one in annex.ITEMS if one.number == "1(a)")
    told = annex._stated({"stated": {"intended_use": "sorting | post", "supplier": "", "users": "clerks"}}, item)
    assert told == [("intended use, as the owner stated it: sorting | post", "`bom.cdx.json`")]
    assert annex._stated({"stated": {}}, item) == []


def test_every_key_of_annex_stated_can_be_stated() -> None:
    from components.handoff.stated import Stated

    assert {key for keys in annex.STATED.values() for key in keys} <= set(Stated.model_fields)
    assert set(annex.STATED) <= set(NUMBERS)


def test_every_file_that_is_named_is_in_the_bundle(bundle: Path, page: str) -> None:
    named = {
        name
        for names in re.findall(r"\((`[\w./-]+`(?:, `[\w./-]+`)*)\)$", page, flags=re.M)
        for name in names.split(", ")
    }
    assert len(named) > 8
    for name in named:
        assert (bundle / name.strip("`")).exists(), name
