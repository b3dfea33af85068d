"""A text stays what it is, a bad row is set aside with its line, nothing shifts, and the counts reconcile."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from components import contracts
from components.contracts import Found, InputError
from components.ingest import stage
from components.ingest.sources import text_table
from components.job import Job

Find = Callable[..., list[Found]]
Ingest = Callable[..., Job]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str, str], Path]:
    def run(content: bytes | str, name: str) -> Path:
        (tmp_path / "data").mkdir(exist_ok=True)
        place = tmp_path / "data" / name
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
        return place

    return run


@pytest.fixture
def find(make_job: Callable[..., Job], write: Callable[..., Path]) -> Find:
    """Write a table of this content and find its texts."""

    def run(content: bytes | str, name: str = "table.csv", **options: Any) -> list[Found]:
        place = write(content, name)
        return list(text_table.find(text_table.Params(**options), place, make_job("ingest")))

    return run


@pytest.fixture
def ingest(make_job: Callable[..., Job], write: Callable[..., Path]) -> Ingest:
    """Write a table of this content and run the stage on it; counts must reconcile."""

    def run(content: bytes | str, name: str = "table.csv", **options: Any) -> Job:
        write(content, name)
        job = make_job("ingest", task="text_classification")
        section = {"source": {"name": "text_table", **options}, "data": f"data/{name}"}
        metrics = stage.run(stage.Params.model_validate(section), job)
        assert metrics["num_seen"] == metrics["num_used"] + metrics["num_quarantined"]
        assert metrics["num_used"] == len(manifest(job))
        assert metrics["num_quarantined"] == len(quarantine(job))
        return job

    return run


def manifest(job: Job) -> pd.DataFrame:
    return contracts.read_table(job.building / "manifest.parquet")


def quarantine(job: Job) -> pd.DataFrame:
    return contracts.read_table(job.building / "quarantine.parquet")


def aside(job: Job) -> dict[str, str]:
    return dict(zip(quarantine(job)["id"], quarantine(job)["reason"]))


def as_csv(rows: list[list[str]], **options: Any) -> str:
    store = io.StringIO(newline="")
    csv.writer(store, lineterminator="\n", **options).writerows([["text", "label"], *rows])
    return store.getvalue()


# --- what a text is ---


def test_a_text_keeps_its_case_its_newlines_and_its_quotes(find: Find) -> None:
    found = find(as_csv([['He said "Hi",\n\nthen  left.', "a"], ["ΣΑΣ ß İ", "b"]]))
    assert found == [
        Found("000000002", "a", {"text": 'He said "Hi",\n\nthen  left.'}),
        Found("000000005", "b", {"text": "ΣΑΣ ß İ"}),
    ]


@pytest.mark.parametrize("value", ["NA", "None", "null", "nan", "N/A", "true", "007", "1e3", "3.0", "-"])
def test_what_looks_missing_or_like_a_number_is_a_text_and_a_label(find: Find, value: str) -> None:
    (one,) = find(as_csv([[value, value]]))
    assert (one.inputs["text"], one.label) == (value, value)


def test_numbers_in_json_and_parquet_become_text(find: Find, tmp_path: Path) -> None:
    lines = ['{"text": 3.0, "label": 1}', '{"text": true, "label": 0}', '{"text": 2.5, "label": null}']
    expected = [("3", "1"), ("true", "0"), ("2.5", None)]
    assert [(f.inputs["text"], f.label) for f in find("\n".join(lines), "t.jsonl")] == expected
    pd.DataFrame({"text": [3, 4], "label": [0.0, None]}).to_parquet(tmp_path / "made.parquet")
    found = find((tmp_path / "made.parquet").read_bytes(), "t.parquet")
    assert [(f.inputs["text"], f.label) for f in found] == [("3", "0"), ("4", None)]


def test_tabs_json_lines_and_parquet_say_the_same(find: Find, tmp_path: Path) -> None:
    rows = [["one, two", "a"], ["three\nfour", "b"]]
    records = [dict(zip(("text", "label"), row)) for row in rows]
    pd.DataFrame(records).to_parquet(tmp_path / "made.parquet")
    given = [
        find(as_csv(rows)),
        find(as_csv(rows, delimiter="\t"), "t.tsv"),
        find(as_csv(rows, delimiter=";"), "s.csv", delimiter=";"),
        find("\n".join(map(json.dumps, records)), "t.jsonl"),
        find((tmp_path / "made.parquet").read_bytes(), "t.parquet"),
    ]
    values = [[(f.inputs, f.label) for f in found] for found in given]
    assert all(one == values[0] for one in values)
    assert values[0] == [({"text": t}, label) for t, label in rows]


def test_a_pair_has_two_texts_of_which_one_may_be_empty(find: Find, ingest: Ingest) -> None:
    content = "premise,hypothesis,label\nA b.,C d.,yes\nE f.,,no\n,,no\n"
    options = {"text": "premise", "text_pair": "hypothesis"}
    assert find(content, **options)[0].inputs == {"text": "A b.", "text_pair": "C d."}
    job = ingest(content, **options)
    assert list(manifest(job)["input.text_pair"]) == ["C d.", ""]
    assert aside(job) == {"000000004": "empty_text"}


def test_ids_are_the_lines_so_order_by_id_is_the_tables_and_rows_added_later_change_none(find: Find) -> None:
    rows = [[f"text {n}", "a"] for n in range(1200)]
    ids = [f.id for f in find(as_csv(rows))]
    assert ids == sorted(ids)
    assert len({*ids}) == 1200
    assert [f.id for f in find(as_csv([*rows, ["more", "b"]]))][:1200] == ids


def test_the_table_may_be_the_data_the_only_one_in_it_or_be_named(make_job: Callable[..., Job], write: Any) -> None:
    place = write(as_csv([["x", "a"]]), "one.csv")
    job = make_job("ingest")

    def found(data: Path, **options: Any) -> list[Found]:
        return list(text_table.find(text_table.Params(**options), data, job))

    assert found(place) == found(place.parent) == found(place.parent, file="one.csv")
    write("text,label\n", "two.csv")
    assert found(place) == found(place.parent, file="one.csv")
    with pytest.raises(InputError, match=r"name the table in .*one\.csv, two\.csv"):
        found(place.parent)
    with pytest.raises(InputError, match="is a file; name its folder"):
        found(place, file="one.csv")
    with pytest.raises(InputError, match="not a file inside"):
        found(place.parent, file="../one.csv")


# --- bad input ---


def test_a_field_too_many_or_too_few_sets_the_row_aside_and_shifts_nothing(ingest: Ingest) -> None:
    job = ingest("text,label\none,a\ntwo, and more,a\nthree\nfour,b\n")
    assert list(zip(manifest(job)["input.text"], manifest(job)["label"])) == [("one", "a"), ("four", "b")]
    assert aside(job) == {"000000003": "wrong_number_of_fields", "000000004": "wrong_number_of_fields"}
    assert quarantine(job)["detail"][0] == "line 3: 3 fields, but the header has 2"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_quoted_newlines_byte_order_mark_and_line_ends_do_not_matter(ingest: Ingest, line_end: str) -> None:
    lines = ["text,label", '"first', "", 'second, third",a', "next,b", ""]
    job = ingest(b"\xef\xbb\xbf" + line_end.join(lines).encode())
    assert list(manifest(job)["label"]) == ["a", "b"]
    assert manifest(job)["input.text"][0].split() == ["first", "second,", "third"]
    assert list(manifest(job)["id"]) == ["000000002", "000000005"]


def test_rows_that_are_not_utf8_are_set_aside_one_by_one(ingest: Ingest, capsys: Any) -> None:
    rows = ["plain,a", "caf\u00e9 good,b", "caf\u00e9 bad,c", "more,b", "\u30c6\u30b9\u30c8,d"]
    codecs = ["utf-8", "utf-8", "cp1252", "utf-8", "shift-jis"]
    content = b"text,label\n" + b"".join((r + "\n").encode(c) for r, c in zip(rows, codecs))
    job = ingest(content)
    assert list(manifest(job)["input.text"]) == ["plain", "caf\u00e9 good", "more"]
    assert aside(job) == {"000000004": "not_utf8", "000000006": "not_utf8"}
    assert quarantine(job)["detail"][0] == "line 4: byte 0xe9 is not utf-8"
    assert "is it in another encoding" in capsys.readouterr().err
    ingest(content.replace(rows[4].encode("shift-jis"), rows[4].encode()))
    assert "is it in another encoding" not in capsys.readouterr().err


def test_json_lines_that_are_not_utf8_are_set_aside_one_by_one(ingest: Ingest) -> None:
    lines = [b'{"text": "one", "label": "a"}', b'{"text": "caf\xe9", "label": "a"}', b'{"text": "two", "label": "b"}']
    job = ingest(b"\n".join(lines), "t.jsonl")
    assert list(manifest(job)["input.text"]) == ["one", "two"]
    assert aside(job) == {"000000002": "not_utf8"}


def test_text_in_parquet_that_is_not_utf8_is_set_aside_row_by_row(ingest: Ingest, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    raw = pyarrow.array([b"one", b"caf\xe9", b"caf\xc3\xa9"], pyarrow.binary())
    for column in (raw, raw.view(pyarrow.string())):
        table = pyarrow.table({"text": column, "label": ["a", "b", "c"]})
        pyarrow.parquet.write_table(table, tmp_path / "made.parquet")
        job = ingest((tmp_path / "made.parquet").read_bytes(), "t.parquet")
        assert list(manifest(job)["input.text"]) == ["one", "café"]
        assert aside(job) == {"000000002": "not_utf8"}


def test_another_encoding_is_read_where_it_is_named(find: Find) -> None:
    for codec in ("cp1252", "latin-1", "utf-16", "utf-16-le", "utf-16-be"):
        named = "utf-16" if codec.startswith("utf-16") else codec
        assert find("text,label\ncafé,a\n".encode(codec), encoding=named)[0].inputs["text"] == "café"
    (odd,) = find(b"text,label\n\x81,a\n", encoding="cp1252")
    assert odd.reason == "not_cp1252"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_that_was_not_named_is_refused_and_says_what_to_set(find: Find, encoding: str) -> None:
    with pytest.raises(InputError, match=r"table.csv is UTF-16; set `encoding: utf-16`"):
        find("text,label\nnone,a\n".encode(encoding))
    with pytest.raises(InputError, match="line 3 is not utf-16"):
        find("text,label\nnone,a\n".encode("utf-16-le") + b"\x00\xd8", encoding="utf-16")


def test_a_header_in_another_encoding_is_refused(find: Find) -> None:
    with pytest.raises(InputError, match="its header, line 1, is not utf-8"):
        find(b"caf\xe9,text,label\nx,y,z\n")


def test_of_rows_with_one_id_the_first_stands(ingest: Ingest) -> None:
    rows = ["k1,one,a", "k2,two,a", "k1,three,b", ",four,b", "k1,five,b", "k3,six,b"]
    job = ingest("key,text,label\n" + "\n".join(rows) + "\n", id="key")
    assert list(zip(manifest(job)["id"], manifest(job)["input.text"])) == [("k1", "one"), ("k2", "two"), ("k3", "six")]
    assert aside(job) == {
        "table.csv line 4": "duplicate_id", "table.csv line 5": "missing_id", "table.csv line 6": "duplicate_id",
    }  # fmt: skip
    told = quarantine(job).set_index("id").loc["table.csv line 6"]
    assert told["detail"] == "line 6: the id 'k1' stands on line 2 too"
    assert told["where"] == "five"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_text_of_ten_megabytes_is_set_aside_and_its_neighbours_are_not(
    ingest: Ingest, tmp_path: Path, name: str
) -> None:
    rows = [["before", "a"], ["long wörds\n" * 1_000_000, "b"], ["y" * 1_000_001, "b"], ["z" * 1_000_000, "b"]]
    records = [dict(zip(("text", "label"), row)) for row in rows]
    pd.DataFrame(records).to_parquet(tmp_path / "made.parquet")
    content: dict[str, Any] = {
        "t.csv": as_csv(rows), "t.jsonl": "\n".join(map(json.dumps, records)),
        "t.parquet": (tmp_path / "made.parquet").read_bytes(),
    }  # fmt: skip
    job = ingest(content[name], name)
    assert list(manifest(job)["property.num_chars"]) == [6, 1_000_000]
    assert set(aside(job).values()) == {"too_long"}
    where = quarantine(job)["where"]
    assert where.str.len().tolist() == [200, 200]
    assert not where.str.contains("\n").any()
    assert where[0].startswith("long wörds long")


def test_the_limit_of_the_csv_module_is_as_it_was(find: Find) -> None:
    before = csv.field_size_limit()
    find(as_csv([["x" * 200_000, "a"]]))
    with pytest.raises(InputError):
        find('text,label\n"x')
    assert csv.field_size_limit() == before


def test_empty_texts_are_set_aside(ingest: Ingest) -> None:
    job = ingest('text,label\n,a\n"",b\n"  \n\t",c\n\u200bx,d\n')
    assert list(manifest(job)["label"]) == ["d"]
    assert aside(job) == dict.fromkeys(["000000002", "000000003", "000000004"], "empty_text")


def test_nul_bytes_are_set_aside(ingest: Ingest) -> None:
    job = ingest("text,label\none more,a\ntwo\0 more,b\nthree more,\0c\nfour more,d\n")
    assert list(manifest(job)["label"]) == ["a", "d"]
    assert aside(job) == {"000000003": "nul_byte", "000000004": "nul_byte"}


def test_half_characters_in_json_are_set_aside(ingest: Ingest) -> None:
    lines = [
        r'{"text": "ok \ud83d\ude00", "label": "a"}', r'{"text": "half \ud83d", "label": "b"}',
        r'{"text": "fine", "label": "\ude00"}',
    ]  # fmt: skip
    job = ingest("\n".join(lines), "t.jsonl")
    assert list(manifest(job)["input.text"]) == ["ok 😀"]
    assert aside(job) == {"000000002": "invalid_utf8", "000000003": "malformed_value"}
    assert quarantine(job)["where"][0] == "half  "


def test_json_values_that_are_no_text_are_set_aside(ingest: Ingest) -> None:
    lines = ['{"text": "a", "label": "x"}', '{"text": ["a"], "label": "x"}', '{"label": "x"}', "{", "[1]"]
    assert aside(ingest("\n".join(lines), "t.jsonl")) == {
        "000000002": "malformed_value", "000000003": "empty_text", "000000004": "malformed_row",
        "000000005": "malformed_row",
    }  # fmt: skip


def test_a_quote_inside_a_text_tears_no_text_into_rows(ingest: Ingest) -> None:
    torn = 'text,label\n"he said "hi" there\nsecond line,more\nand a third, end",spam\nfine,ham\n"x"y,z\nlast,ham\n'
    job = ingest(torn)
    assert list(manifest(job)["input.text"]) == ["fine", "last"], "lines of the torn text must not become samples"
    told = {n: aside(job)[f"{n:09d}"] for n in (2, 3, 4, 6)}
    assert told == {2: "malformed_row", 3: "malformed_row", 4: "wrong_number_of_fields", 6: "malformed_row"}
    assert "line 2 leaves a quote open and line 4 closes it" in quarantine(job)["detail"][1]


def test_a_quote_that_stays_open_is_refused_with_its_line(find: Find) -> None:
    with pytest.raises(InputError, match=r"from line 3 on .*quote: null"):
        find('text,label\nx,a\n"y,b\nz,c\n')


def test_quotes_can_be_plain_characters(find: Find) -> None:
    rows = ['"I came', 'he said "no"', 'a 5" screen', '" and "']
    content = "text\tlabel\n" + "".join(f"{row}\ta\n" for row in rows)
    assert [f.inputs["text"] for f in find(content, "t.tsv", quote=None)] == rows


def test_a_text_that_names_a_path_of_the_stage_is_not_touched(ingest: Ingest) -> None:
    text = "artifacts/ingest/samples/1.png"
    assert list(manifest(ingest(as_csv([[text, "a"]])))["input.text"]) == [text]


def test_a_table_without_the_columns_says_which_there_are(find: Find) -> None:
    with pytest.raises(InputError, match=r"no column 'text', 'label'\. Its columns: message, kind"):
        find("message,kind\nx,y\n")


def test_options_are_strict() -> None:
    for wrong in ({"text": "label"}, {"text_pair": "text"}, {"colum": "x"}, {"quote": "''"}, {"encoding": "ebcdic"}):
        with pytest.raises(ValidationError):
            text_table.Params.model_validate(wrong)


def test_a_list_of_labels_is_written_as_the_decision_has_it(make_job: Callable[..., Job], write: Any) -> None:
    given: list[Any] = [["b", " a"], ["c"], [], "a;b", None, ["x;y"], [["a"]], [3, 1.0]]
    place = write("\n".join(json.dumps({"text": "t", "label": one}) for one in given), "t.jsonl")

    def found(decision: str) -> list[tuple[str | None, str]]:
        job = make_job("ingest", decision=decision)
        return [(f.label, f.reason) for f in text_table.find(text_table.Params(), place, job)]

    bad = (None, "malformed_value")
    assert found("multi_label") == [
        ("a;b", ""), ("c", ""), ("(none)", ""), ("a;b", ""), (None, ""), bad, bad, ("1;3", ""),
    ]  # fmt: skip
    assert found("single_label") == [bad, bad, bad, ("a;b", ""), (None, ""), bad, bad, bad]


# --- attributes ---


def test_what_the_task_measures_is_an_attribute_beside_the_sources(ingest: Ingest) -> None:
    job = ingest("text,label,who\nhello there,a,ann\nдобрый день,b,\n", attributes=["who"])
    assert list(manifest(job)["attribute.script"]) == ["latin", "cyrillic"]
    assert list(manifest(job)["attribute.who"]) == ["ann", None]
    assert contracts.read_json(job.building / "summary.json")["attributes"] == ["attribute.script", "attribute.who"]


def test_the_sources_own_attribute_of_a_name_is_taken_for_every_row(ingest: Ingest) -> None:
    job = ingest("text,label,script\nhello there,a,mine\nдобрый день,b,\n", attributes=["script"])
    assert list(manifest(job)["attribute.script"]) == ["mine", None]


# --- as a whole ---


def _texts(rng: np.random.Generator, num: int) -> list[list[str]]:
    parts = ["word", "Ünï", "日本", '"', ",", "\n", "\t", ";", "'", "NA", " ", "😀", "\r\n", "\\", "\u2028"]
    made = []
    for n in range(num):
        text = f"t{n} " + " ".join(rng.choice(parts, rng.integers(1, 12)))
        made.append([text, str(rng.choice(["NA", "None", "a b", "x,y", "0"]))])
    return made


def _damage(line: bytes, rng: np.random.Generator) -> bytes:
    """A row that no longer says what it said, in one of the ways that are seen."""
    kind = rng.integers(5)
    if kind == 0:
        return line + b",extra"
    if kind == 1:
        return line.rsplit(b",", 1)[0]
    if kind == 2:
        return b"\xff\xfe" + line
    if kind == 3:
        return line.replace(b"t", b"t\0", 1)
    return b'"torn "quote" here\nsecond line,third\nend",x'


@pytest.mark.parametrize("seed", range(12))
def test_no_row_that_is_used_differs_from_what_was_written_and_every_one_is_counted(ingest: Ingest, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = _texts(rng, 60)
    lines = [as_csv([row]).split("\n", 1)[1].removesuffix("\n").encode() for row in rows]
    bad = sorted(rng.choice(60, 9, replace=False).tolist())
    for n in bad:
        lines[n] = _damage(as_csv([[f"t{n} plain", "a"]]).split("\n", 1)[1].strip().encode(), rng)
    job = ingest(b"text,label\n" + b"\n".join(lines) + b"\n")
    used = list(zip(manifest(job)["input.text"], manifest(job)["label"]))
    assert used == [(t, label) for n, (t, label) in enumerate(rows) if n not in bad]
    assert len(quarantine(job)) >= len(bad)


def test_the_same_bytes_each_time_whatever_the_threads(
    make_job: Callable[..., Job], write: Callable[..., Path]
) -> None:
    write(as_csv([*_texts(np.random.default_rng(0), 80), ["", "a"]]), "t.csv")
    seen = []
    for threads in (1, 2, 5, 2):
        job = make_job("ingest", task="text_classification", threads=threads)
        stage.run(stage.Params.model_validate({"source": {"name": "text_table"}, "data": "data/t.csv"}), job)
        seen.append({p.name: p.read_bytes() for p in sorted(job.building.rglob("*")) if p.is_file()})
    assert all(one == seen[0] for one in seen)


def test_a_source_of_files_is_refused_for_texts_and_the_other_way_round(
    make_job: Callable[..., Job], write: Callable[..., Path]
) -> None:
    write(as_csv([["x", "a"]]), "t.csv")
    section = stage.Params.model_validate({"source": {"name": "text_table"}, "data": "data/t.csv"})
    with pytest.raises(InputError, match=r"gives text, but run\.task image_classification needs path"):
        stage.run(section, make_job("ingest"))
    section = stage.Params.model_validate({"source": {"name": "image_folder"}, "data": "data"})
    with pytest.raises(InputError, match=r"gives path, but run\.task text_classification needs text"):
        stage.run(section, make_job("ingest", task="text_classification"))
