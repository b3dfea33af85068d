"""The comment for a pull request: what it tells of a run, and that no name of the data becomes more than text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fabricated_run
import miniature
import pytest
from markdown_it import MarkdownIt

from pipelines import comment, markdown

HOSTILE = (
    "<script>alert(1)</script>", "![x](http://evil.example/x.png)", "[click](javascript:alert(1))", "a | b | c",
    "`code` **bold** ~~gone~~ <!-- graftline: cats -->", "@everyone see #1 and www.evil.example or https://evil.example",
    "two\nlines\n\n# heading", "$x$ \\| \\` &lt;b&gt; &amp;", "| --- |", "]( ) > quote", "1. list - item + item",
)  # fmt: skip


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_text_and_does_nothing(name: str) -> None:
    table = markdown.table("", ("name", "value"), [(markdown.plain(name), "1")])
    html = rendered(table)
    assert html.count("<td>") == 2, html
    for tag in ("<a", "<img", "<script", "<!--", "<code", "<strong", "<s>", "<h1", "<li"):
        assert tag not in html, html
    shown = html.split("<td>")[1].split("</td>")[0]
    for trigger in ("@everyone", "#1", "https://", "http://", "www.evil"):
        assert trigger not in shown, shown
    wanted = " ".join(name.split())
    plain = shown.replace("\u2060", "").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    assert plain.replace("&amp;", "&") == wanted


def test_a_fence_holds_whatever_stands_in_it() -> None:
    html = rendered(markdown.fenced(["```", "# heading", "````"]))
    assert html.count("<pre>") == 1
    assert "<h1" not in html


def test_it_tells_verdict_rules_stages_and_that_metrics_are_the_same(finished_project: Path) -> None:
    text = comment.compose(finished_project, None)
    assert text.startswith("<!-- graftline: mini -->\n\n### mini: ✅ passed, 1 rule\n")
    assert "```text\nverdict      passed, 1 rule\n" in text
    assert "| ✅ | mean at least 1.0 | 2 | 1 | +1 |" in text
    assert "Every metric is as in" in text
    assert "Other in `dvc.lock` than in" in text
    assert "none." in text


def test_a_change_is_told_with_both_values(finished_project: Path) -> None:
    """The commit has another figure than the run. How a refusal and what ran is told: test_ci_steps.py."""
    place = finished_project / "artifacts" / "ingest" / "metrics.json"
    true = place.read_text()
    place.write_text(true.replace("3", "4"))
    miniature.commit(finished_project)
    place.write_text(true)
    text = comment.compose(finished_project, "HEAD")
    assert "| ingest.num\\_used ↑ | 4 | 3 | -1 | no interval |" in text


def test_a_fault_is_told_by_its_stage(finished_project: Path) -> None:
    miniature.turn_knob(finished_project, 'suffix: ".v1"', "suffix: fault")
    place = finished_project / "reports" / "export" / "status.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"exit_code": 1, "told": "a fault of ours | of <export>\nmore"}))
    title = comment.compose(finished_project, None).splitlines()[2]
    assert title == "### mini: ⚠️ export stopped: a fault of ours \\| of &lt;export&gt;"


@pytest.fixture
def compared(finished_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The figures of a whole run, over a commit with those of a better one."""
    root = finished_project
    for passed in (True, False):
        shutil.rmtree(root / "artifacts")
        fabricated_run.make(root, passed=passed, hostile=True)
        if passed:
            miniature.commit(root)
    names = ("evaluate", "bias", "drift", "finetune", "gate")
    line = [_stage(name) for name in names]
    monkeypatch.setattr(comment.dag, "load", lambda _: line)
    monkeypatch.setattr(comment.dvc_cli, "stale", lambda _: {})
    return root


def _stage(name: str) -> Any:
    from pipelines.dag import Stage

    told = dict.fromkeys(Stage.__dataclass_fields__, ())
    return Stage(**{**told, "name": name, "cmd": ""})  # type: ignore[arg-type]


def test_metrics_with_intervals_are_judged_by_them(compared: Path) -> None:
    before = json.loads("\n".join(comment.history.git(compared, "show", "HEAD:artifacts/evaluate/metrics.json")))
    after = json.loads((compared / "artifacts" / "evaluate" / "metrics.json").read_text())
    text = comment.compose(compared, "HEAD")
    row = next(one for one in text.splitlines() if one.startswith("| evaluate.accuracy ↑"))
    cells = [one.strip() for one in row.strip("|").split("|")]
    assert cells[1:3] == [markdown.number(before["accuracy"]), markdown.number(after["accuracy"])]
    assert cells[4].startswith("🔴 worse ("), row
    assert any("↓ |" in one and "🔴" not in one.split("|")[1] for one in text.splitlines()), "less is better of some"


def test_curve_and_groups_are_drawn_without_pictures_and_names_stay_text(compared: Path) -> None:
    text = comment.compose(compared, "HEAD", [("report", "https://ci.example/1")])
    html = rendered(text)
    assert "```mermaid\nxychart-beta" in text
    assert "█" in text
    assert "<script" not in html
    assert html.count("<a ") == 1
    assert "<img" not in html
    assert len(text) < comment.LONGEST


def test_a_commit_that_is_not_there_and_a_link_that_is_none_are_told(finished_project: Path) -> None:
    for words, told in ((("--base", "nowhere"), "nowhere"), (("--base=--output=x",), "--output=x")):
        done = miniature.line(finished_project, "comment", *words)
        assert (done.returncode, told in done.stderr) == (2, True)
    done = miniature.line(finished_project, "comment", "--link", "report=javascript:x")
    assert (done.returncode, "TITLE=https" in done.stderr) == (2, True)
