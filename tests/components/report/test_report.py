"""The page as text: what is on it, that it is stable, safe and whole whatever is missing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import fabricated_run
import pytest

from components.contracts import read_json, write_json
from components.job import Job
from components.params import load_yaml
from components.report.facts import FILES
from components.report.stage import NEEDS, Params, run

VOID = {"meta", "img", "br", "wbr", "line", "circle", "rect", "polyline"}
SECTIONS = (
    "verdict", "headline", "rules", "choice", "transfer", "training", "quality", "confusion", "labels",
    "calibration", "groups", "drift", "data", "augmentation", "lineage", "limits", "next",
)  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def make_page(make_job: Callable[..., Job], num_classes_shown: int = 30) -> str:
    job = make_job("report", NEEDS, name="shapes")
    run(Params(num_classes_shown=num_classes_shown), job)
    return (job.building / "index.html").read_text("utf-8")


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("labels", [2, 3, 100])
def test_every_section_is_there(tmp_path: Path, make_job: Callable[..., Job], labels: int, passed: bool) -> None:
    fabricated_run.make(tmp_path, labels, passed)
    page = Page(make_page(make_job))
    assert tuple(s["id"] for s in page.all("section")) == SECTIONS
    assert {a["href"] for a in page.all("a")} <= {f"#{name}" for name in SECTIONS}
    assert len(page.all("svg")) > 20


def test_metrics_count_sections_and_missing_files(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    (tmp_path / "artifacts/bias/groups.json").unlink()
    metrics = run(Params(num_classes_shown=30), make_job("report", NEEDS))
    assert metrics == {"num_sections": 17.0, "num_missing": 1.0}


def test_same_files_same_bytes(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    assert make_page(make_job) == make_page(make_job)


def test_no_machine_and_no_time_on_the_page(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    html = make_page(make_job)
    assert str(tmp_path) not in html
    assert not re.search(r"\d\d:\d\d:\d\d|20\d\d-\d\d-\d\d", html)


def test_a_refusal_is_told_first_with_its_rules(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path, passed=False)
    html = make_page(make_job)
    banner = html[html.index('<section id="verdict"') : html.index("</section>")]
    assert "Refused" in banner
    assert "Nothing is exported" in banner
    assert "<strong>evaluate.ece at most 0.05</strong>: 0.071 is above 0.05, by 0.021" in banner
    assert "not measured" in banner


def test_headline_figures_are_those_of_the_files(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    accuracy = read_json(tmp_path / "artifacts/evaluate/quality.json")["runs"]["main"]["test"]["accuracy"]
    text = make_page(make_job).replace("\u00a0", " ")
    assert f"{100 * accuracy['value']:.1f} %" in text
    assert f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f} % (95 % interval), 90 samples" in text
    assert "tf_<wbr>efficientnet_<wbr>lite0" in text


def test_it_says_of_which_network_its_figures_are(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    """The page is made before the export chooses a variant."""
    fabricated_run.make(tmp_path)
    html = make_page(make_job)
    assert "as it was trained, in float32" in html
    assert "The shipped model" not in html


def test_user_text_is_escaped(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path, labels=6, hostile=True, passed=False)
    html = make_page(make_job)
    page = Page(html)
    assert not page.all("script")
    assert not page.all("b")
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in html
    assert "日本語" in html


def test_nothing_is_loaded_from_outside(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    html = make_page(make_job)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert all((i["src"] or "").startswith("data:image/png;base64,") for i in page.all("img"))
    assert "url(" not in html
    assert "@import" not in html
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_pictures_tables_and_headings_are_for_readers_too(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    page = Page(make_page(make_job))
    assert all(i["alt"] for i in page.all("img"))
    assert all(s.get("aria-label") or s.get("aria-hidden") == "true" for s in page.all("svg"))
    assert all(h.get("scope") in ("col", "row") for h in page.all("th"))
    assert [len(page.all(h)) for h in ("h1", "h2")] == [1, len(SECTIONS)]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_confusion_is_drawn_up_to_the_limit_and_listed_beyond(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path, labels=10)
    assert 'class="matrix"' in make_page(make_job, 10)
    beyond = make_page(make_job, 9)
    assert 'class="matrix"' not in beyond
    assert "more than report.num_classes_shown (9)" in beyond
    assert "taken for" in beyond


def test_confusion_cells_are_the_counts(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path, labels=2)
    lines = ["label,predicted", *["circle,circle"] * 8, *["circle,square"] * 2, *["square,square"] * 5]
    (tmp_path / "artifacts/evaluate/confusion.csv").write_text("\n".join(lines) + "\n")
    matrix = re.search(r'<table class="matrix".*?</table>', make_page(make_job), re.DOTALL)
    assert matrix is not None
    cells = re.findall(r'<td class="(\w+) h(\d)">(\d+)</td>', matrix.group())
    assert cells == [("right", "4", "8"), ("wrong", "1", "2"), ("wrong", "0", "0"), ("right", "5", "5")]


def test_every_file_may_be_missing(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path / "whole")
    for file in (*FILES, "augment/preview.png"):
        shutil.rmtree(tmp_path / "artifacts", ignore_errors=True)
        shutil.copytree(tmp_path / "whole/artifacts", tmp_path / "artifacts")
        (tmp_path / "artifacts" / file).unlink()
        html = make_page(make_job)
        Page(html)
        assert html.count("<section ") == 17, file
        if "metrics" not in file:
            assert file in html, f"the page does not say that {file} was not made"


def test_a_page_is_made_from_nothing(make_job: Callable[..., Job]) -> None:
    html = make_page(make_job)
    Page(html)
    assert "No verdict" in html
    assert "nothing may be shipped" in html


def test_forgetting_and_the_curve_by_labels_stand_beside_transfer(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    path = tmp_path / "artifacts/evaluate/quality.json"
    quality = read_json(path)
    quality["runs"]["main_15"] = quality["runs"]["frozen_probe"]
    write_json(path, quality)
    html = make_page(make_job).replace("\u00a0", " ")
    section = html[html.index('<section id="transfer"') :]
    text = re.sub(r"<[^>]*>", " ", section[: section.index("</section>")])
    told = " ".join(text.split())
    assert "With 15% of the labels (150) it does better than random weights" in told
    assert "main no evidence of forgetting 92.0 % 91.0 % −1.0 −4.0 to +2.0 34.0 % 29.0 to 39.0 %" in told
    assert "from scratch never had it" in told
    assert "Accuracy by share of the labels" in section
    assert "main 15" not in html, "a run of fewer labels stands in the curve alone"


def test_how_the_strategy_was_found_is_told_where_it_was_not_named(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    fabricated_run.make(tmp_path)
    text = re.sub(r"<[^>]*>", " ", make_page(make_job)).replace("\u00a0", " ")
    told = " ".join(text.split())
    assert "auto took full after a race; runners-up: lp_ft, llrd. 30 samples a label: few" in told
    assert "lp_ft 1 90.0 % 0.3" in told
    write_json(tmp_path / "artifacts/finetune/advice.json", {"asked": False, "headline": "full was named"})
    assert "full was named" not in make_page(make_job)


def test_what_was_not_measured_of_forgetting_says_why(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    path = tmp_path / "artifacts/evaluate/transfer.json"
    told = {"measured": False, "runs": [], "headline": "It was not measured: finetune.references has no frozen_probe."}
    curve = {"points": [], "gains": [], "headline": "Not asked for: finetune.label_shares is empty."}
    write_json(path, read_json(path) | {"forgetting": told, "label_efficiency": curve})
    html = make_page(make_job)
    assert "finetune.references has no frozen_probe" in html
    assert "finetune.label_shares is empty" in html


def test_null_figures_are_dashes(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path)
    for file in (
        "evaluate/quality.json",
        "bias/groups.json",
        "evaluate/transfer.json",
        "select/leaderboard.json",
    ):
        path = tmp_path / "artifacts" / file
        write_json(path, _without_figures(read_json(path)))
    html = make_page(make_job)
    Page(html)
    assert "None" not in html
    assert "nan" not in re.sub(r"<[^>]*>", "", html).lower().split()


def _without_figures(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_figures(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_figures(v) for v in value]
    return None if isinstance(value, float) else value


def test_reads_exactly_what_the_graph_declares(repository: Path) -> None:
    deps = load_yaml(repository / "dvc.yaml")["stages"]["report"]["deps"]
    declared = {d.removeprefix("artifacts/") for d in deps if d.startswith("artifacts/")}
    assert declared == {*FILES, "augment/preview.png"}


def test_of_several_labels_each_has_its_own_four_counts(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    """50 samples, 10 of them wrong and 20 with one label on both sides: no matrix of those 20 alone."""
    fabricated_run.make(tmp_path, labels=2)
    pairs = [("circle", "circle")] * 20 + [("circle;square", "circle;square")] * 15
    pairs += [("(none)", "(none)")] * 5 + [("circle;square", "circle")] * 10
    lines = "".join(f"{label},{predicted}\n" for label, predicted in pairs)
    (tmp_path / "artifacts/evaluate/confusion.csv").write_text("label,predicted\n" + lines)
    path = tmp_path / "artifacts/evaluate/quality.json"
    counts = [{"label": "circle", "num": 45, "num_decided": 45, "num_right": 45},
              {"label": "square", "num": 25, "num_decided": 15, "num_right": 15}]  # fmt: skip
    rated = [row | own for row, own in zip(read_json(path)["per_label"], counts)]
    write_json(path, read_json(path) | {"per_label": rated})
    html = make_page(make_job)
    Page(html)
    assert 'class="matrix"' not in html
    section = re.search(r'<section id="confusion".*?</section>', html, re.DOTALL)
    assert section is not None
    told = re.sub(r"<[^>]*>", " ", section.group()).split()
    text = " ".join(told)
    assert "circle 45 0 0 5" in text
    assert "square 15 10 0 25" in text
    assert "circle;square circle 10" in text  # the confused pair


def test_a_matrix_is_not_drawn_of_some_of_the_samples(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fabricated_run.make(tmp_path, labels=2)  # whose quality.json has no counts of decisions
    (tmp_path / "artifacts/evaluate/confusion.csv").write_text("label,predicted\ncircle,circle\n(none),square\n")
    html = make_page(make_job)
    assert 'class="matrix"' not in html
    assert "A sample may have several labels or none" in html
