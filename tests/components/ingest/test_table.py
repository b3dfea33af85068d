"""A row is a sample, or is set aside with its line; nothing shifts and no label is taken for missing."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pytest
from pydantic import ValidationError

from components.contracts import Found, InputError
from components.ingest.sources import table

Find = Callable[..., list[Found]]
HEADER = "path,label,who\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return factories.image_folder(tmp_path / "data", per_label=2)


@pytest.fixture
def find(make_job: Callable[..., Any], data: Path) -> Find:
    """Write a table of this content and find what it names."""
    job = make_job("ingest")

    def run(content: bytes | str, name: str = "table.csv", **options: Any) -> list[Found]:
        raw = content.encode() if isinstance(content, str) else content
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(raw)
        return list(table.find(table.Params(file=name, **options), data, job))

    return run


def test_a_row_is_a_sample(find: Find) -> None:
    found = find("path,label,who\ncircle/000.png,round,ann\nsquare/001.png,angular,\n", attributes=["who"])
    assert found == [
        Found("circle/000.png", "round", {"path": "data/circle/000.png"}, {"who": "ann"}),
        Found("square/001.png", "angular", {"path": "data/square/001.png"}, {}),
    ]


@pytest.mark.parametrize("label", ["NA", "None", "null", "nan", "N/A", "0", "01", "1e3", "true", "-", "ça va"])
def test_a_label_that_looks_missing_is_a_label(find: Find, label: str) -> None:
    assert [f.label for f in find(f"path,label\na.png,{label}\n")] == [label]


def test_only_an_empty_label_is_missing(find: Find) -> None:
    assert [f.label for f in find('path,label\na.png,\nb.png,  \nc.png,""\n')] == [None, None, None]


def test_rows_with_a_field_too_many_or_too_few_are_set_aside_with_their_line(find: Find) -> None:
    found = find(HEADER + "a.png,x,1\nb.png,y,2,extra\n\nc.png,z\nd.png,w,4\n")
    assert [(f.id, f.label, f.reason) for f in found] == [
        ("a.png", "x", ""),
        ("table.csv line 3", None, "wrong_number_of_fields"),
        ("table.csv line 5", None, "wrong_number_of_fields"),
        ("d.png", "w", ""),
    ]
    assert found[1].detail == "line 3: 4 fields, but the header has 3"


def test_quotes_may_hold_newlines_and_delimiters(find: Find) -> None:
    found = find('path,label,who\n"a,b.png","two\nlines",x\nc.png, "quoted after a blank",y\n')
    assert [(f.id, f.label) for f in found] == [("a,b.png", "two\nlines"), ("c.png", "quoted after a blank")]


def test_a_row_with_a_broken_quote_is_set_aside_and_the_next_one_is_not(find: Find) -> None:
    found = find('path,label\na.png,"x"y\nb.png,z\n')
    assert [(f.reason, f.label) for f in found] == [("malformed_row", None), ("", "z")]


def test_a_quote_that_is_not_closed_is_told_with_its_line(find: Find) -> None:
    with pytest.raises(InputError, match=r"from line 3 on.*quote"):
        find('path,label\na.png,x\nb.png,"y\nc.png,z\n')
    with pytest.raises(InputError, match=r"from line 2 on.*quote"):
        find('path,label\na.png,"' + "x,y\n" * 50_000)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_line_ends_do_not_matter(find: Find, line_end: str) -> None:
    text = line_end.join(["path,label", "a.png,x", "b.png,y", ""])
    assert [(f.id, f.label) for f in find(b"\xef\xbb\xbf" + text.encode())] == [
        ("a.png", "x"),
        ("b.png", "y"),
    ]


def test_nul_bytes_set_the_row_aside(find: Find) -> None:
    found = find("path,label\na\0.png,x\nb.png,\0y\nc.png,z\n")
    assert [f.reason for f in found] == ["nul_byte", "nul_byte", ""]


def test_a_row_that_is_not_utf8_is_set_aside_with_its_line(find: Find) -> None:
    found = find(b"path,label\na.png,x\nb.png,caf\xe9\nc.png,y\n")
    assert [(f.label, f.reason) for f in found] == [("x", ""), (None, "not_utf8"), ("y", "")]
    assert found[1].detail == "line 3: byte 0xe9 is not utf-8"
    assert find(b"path,label\nb.png,caf\xe9\n", encoding="cp1252")[0].label == "café"


def test_utf16_is_named_and_can_be_read(find: Find) -> None:
    content = "path,label\na.png,x\n".encode("utf-16")
    with pytest.raises(InputError, match="UTF-16"):
        find(content)
    assert find(content, encoding="utf-16")[0].label == "x"


def test_a_column_that_is_not_there_lists_those_that_are(find: Find) -> None:
    with pytest.raises(InputError, match=r"no column 'species'\. Its columns: path, label, who"):
        find(HEADER + "a.png,x,1\n", label="species")
    with pytest.raises(InputError, match=r"no column 'path', 'label'.*Is ';' its delimiter"):
        find("path;label\na.png;x\n")
    assert find("path;label\na.png;x\n", delimiter=";")[0].label == "x"


def test_a_column_that_is_there_twice_is_a_mistake(find: Find) -> None:
    with pytest.raises(InputError, match="'label' twice"):
        find("path,label,label\na.png,x,y\n")
    assert find("path,label,,\na.png,x,1,2\n")[0].label == "x", "unused columns may be nameless"


def test_an_id_that_comes_twice_is_told_with_both_lines(find: Find) -> None:
    with pytest.raises(InputError, match=r"'k1'.*lines 2 and 4"):
        find("path,label,key\na.png,x,k1\nb.png,y,k2\nc.png,z,k1\n", id="key")


def test_a_path_that_comes_twice_keeps_both_rows(find: Find) -> None:
    found = find("path,label\na.png,x\na.png,y\n./a.png,z\na.png,x\n")
    assert [(f.id, f.label) for f in found] == [
        ("a.png", "x"),
        ("a.png#2", "y"),
        ("./a.png", "z"),
        ("a.png#3", "x"),
    ]


def test_missing_path_or_id_sets_the_row_aside(find: Find) -> None:
    found = find("path,label,key\n,x,k1\nb.png,y,\nc.png,z,k3\n", id="key")
    assert [(f.id, f.reason) for f in found] == [
        ("table.csv line 2", "missing_path"),
        ("table.csv line 3", "missing_id"),
        ("k3", ""),
    ]


def test_paths_begin_at_the_tables_folder_and_stay_inside_the_data(find: Find, data: Path) -> None:
    absolute = (data / "square/000.png").as_posix()
    content = f"path,label\n../circle/000.png,x\n../../secret.png,y\n{absolute},z\ncircle/../../../s.png,w\n"
    found = find(content, "lists/table.csv")
    assert [f.reason for f in found] == ["", "path_outside_data", "", "path_outside_data"]
    assert found[0].inputs == {"path": "data/circle/000.png"}
    assert found[2].inputs == {"path": "data/square/000.png"}


def test_relative_paths_can_begin_elsewhere(find: Find) -> None:
    found = find("path,label\n000.png,x\n", "lists/table.csv", base="circle")
    assert found[0].inputs == {"path": "data/circle/000.png"}


def test_backslashes_are_slashes_where_that_finds_a_file(find: Find) -> None:
    found = find("path,label\ncircle\\000.png,x\nno\\such.png,y\n")
    assert found[0].inputs == {"path": "data/circle/000.png"}
    assert found[1].inputs == {"path": "data/no\\such.png"}


def test_tabs_json_lines_and_parquet_say_the_same(find: Find, data: Path) -> None:
    import pandas as pd

    rows = [
        {"path": "circle/000.png", "label": "a", "n": 1},
        {"path": "square/000.png", "label": "b", "n": 2},
    ]
    options: dict[str, Any] = {"attributes": ["n"]}
    as_csv = find("path,label,n\ncircle/000.png,a,1\nsquare/000.png,b,2\n", **options)
    pd.DataFrame(rows).to_parquet(data / "made.parquet")
    others = [
        find("path\tlabel\tn\ncircle/000.png\ta\t1\nsquare/000.png\tb\t2\n", "table.tsv", **options),
        find("\n".join(map(json.dumps, rows)), "table.jsonl", **options),
        find((data / "made.parquet").read_bytes(), "table.parquet", **options),
    ]
    assert all(other == as_csv for other in others)


def test_json_lines_that_cannot_be_used_are_set_aside(find: Find) -> None:
    lines = [
        '{"path": "a.png", "label": null}', "{broken", '["a.png", "x"]', '{"path": "b.png", "label": ["x"]}',
        "",
        '{"path": "c.png", "label": 3.0}', '{"path": "d.png"}', '{"path": "\\ud800.png", "label": "x"}',
        '{"path": "e.png", "label": true}', '{"path": "f.png", "label": "null"}', "[" * 100_000,
        '{"path": "g.png", "label": NaN}',
    ]  # fmt: skip
    found = [(f.label, f.reason) for f in find("\n".join(lines), "table.jsonl")]
    assert found == [
        (None, ""), (None, "malformed_row"), (None, "malformed_row"), (None, "malformed_value"), ("3", ""),
        (None, ""), ("x", "malformed_value"), ("true", ""), ("null", ""), (None, "malformed_row"), (None, ""),
    ]  # fmt: skip


def test_values_of_parquet_become_text_without_losing_their_kind(find: Find, data: Path) -> None:
    import pandas as pd

    labels = [1.0, 2.5, None]
    frame = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "label": labels})
    frame["day"] = [datetime.date(2026, 1, 2)] * 3
    frame["kind"] = pd.Categorical(["u", "v", "u"])
    frame.to_parquet(data / "made.parquet")
    found = find((data / "made.parquet").read_bytes(), "t.parquet", attributes=["day", "kind"])
    assert [f.label for f in found] == ["1", "2.5", None]
    assert found[1].attributes == {"day": "2026-01-02", "kind": "v"}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.csv", b"", "t.csv is empty"),
        ("t.jsonl", b"\n\n", "t.jsonl is empty"),
        ("t.parquet", b"not parquet", "t.parquet is not a Parquet file"),
        ("t.parquet", b"", "t.parquet is not a Parquet file"),
        ("t.xlsx", b"PK", "a table ends in one of .csv"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(find: Find, name: str, content: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        find(content, name)


def test_a_header_alone_has_no_samples(find: Find) -> None:
    assert find(HEADER) == []


def test_a_file_that_is_not_there_lists_the_tables_that_are(make_job: Callable[..., Any], data: Path) -> None:
    (data / "one.csv").write_text(HEADER)
    for name in ("two.csv", "../one.csv", "/etc/passwd", "."):
        with pytest.raises(InputError, match=r"Tables there: one\.csv"):
            list(table.find(table.Params(file=name), data, make_job("ingest")))
    with pytest.raises(InputError, match="name its folder"):
        list(table.find(table.Params(file="one.csv"), data / "one.csv", make_job("ingest")))


def test_options_are_strict() -> None:
    for wrong in (
        {},
        {"file": "a", "colum": "b"},
        {"file": "a", "delimiter": "::"},
        {"file": "a", "encoding": "ebcdic"},
    ):
        with pytest.raises(ValidationError):
            table.Params.model_validate(wrong)
