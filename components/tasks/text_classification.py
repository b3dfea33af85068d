"""Text classification: one text, or a pair of texts, and its label.

What: checks a text, knows its properties, turns it into the network's input through the chosen backbone's own
tokenizer.
When: every sample is a text (a message, a sentence, a document whose beginning tells), or a pair of them.
Not when: labels stand for words inside the text (tagging), or the text is to be written.
Settings: none; tokenizer and number of tokens come from the chosen backbone.
Cost: one pass over the characters in `ingest`; tokenising in every stage that needs the network.
Evidence here: tests/contracts/test_tasks.py, examples/spam.
Source: the rules stand at the top of components/preprocessing/text_classification.py.
"""

from __future__ import annotations

import functools
import hashlib
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import params
from components.contracts import Inspection
from components.preprocessing import text_classification as texts
from components.preprocessing.text_classification import Preprocessing, Text

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

Unreadable = texts.Unreadable
INPUTS = ("text",)
"""Columns `input.*` that a source must give; `text_pair` is the second text of a pair, where there is one."""
FILES: tuple[str, ...] = ()
"""Those of them that name a file."""
CHUNK = 256
PICTURE_PX, PICTURE_LINES, LINE_PX = 330, 9, 15
"""Width of a preview's cell, and its lines of text."""


class Params(params.Params):
    """No options."""


def inspect(inputs: dict[str, str], root: Path) -> Inspection:
    """Look at a sample once, whole.

    Raises:
        Unreadable: with a stable reason: see texts.checked.
    """
    del root
    sample = texts.checked(inputs["text"], inputs.get("text_pair"))
    both = sample.text if sample.pair is None else f"{sample.text}\n{sample.pair}"
    content = sample.text if sample.pair is None else f"{sample.text}\0{sample.pair}"
    attributes = {"script": script(both)}
    return Inspection(hashlib.sha256(content.encode()).hexdigest(), properties(both), "", attributes)


def properties(text: str) -> dict[str, float]:
    """Counts, and shares of the characters that are not blank."""
    counts = Counter(text)
    visible = {c: n for c, n in counts.items() if not c.isspace()}
    total = max(1, sum(visible.values()))
    words = text.split()

    def share(claim: Callable[[str], bool]) -> float:
        return sum(n for c, n in visible.items() if claim(c)) / total

    return {
        "num_chars": float(len(text)),
        "num_words": float(len(words)),
        "num_lines": float(counts["\n"] + 1),
        "mean_word_length": sum(map(len, words)) / max(1, len(words)),
        "uppercase_share": share(str.isupper),
        "digit_share": share(str.isdigit),
        "punctuation_share": share(lambda c: c in string.punctuation or unicodedata.category(c).startswith("P")),
        "non_ascii_share": share(lambda c: ord(c) > 127),
        "num_links": float(text.count("http://") + text.count("https://")),
    }


def script(text: str) -> str:
    """The writing system of most letters, in small letters (latin, cyrillic, arabic, cjk, ...); "none" without any."""
    found: Counter[str] = Counter()
    for char, number in Counter(text).items():
        if char.isalpha():
            found[_script(char)] += number
    return min(found, key=lambda name: (-found[name], name)) if found else "none"


@functools.lru_cache(maxsize=4096)
def _script(char: str) -> str:
    return unicodedata.name(char, "unnamed").split(" ", 1)[0].split("-", 1)[0].lower()


def samples_of(table: pd.DataFrame) -> list[Text]:
    """The rows of a manifest as samples, not yet tokenised."""
    second = table["input.text_pair"] if "input.text_pair" in table else [None] * len(table)
    return [Text(text, pair if isinstance(pair, str) else None) for text, pair in zip(table["input.text"], second)]


def prepare(
    table: pd.DataFrame,
    preprocessing: dict[str, Any],
    root: Path,
    cache: Path,
    threads: int,
    progress: Callable[[Iterable[Any], str, int], Iterator[Any]],
) -> np.ndarray:
    """The rows as tokenised samples, an object array [N] of Text."""
    del root, cache, threads  # the text stands in the manifest, and tokenising is quick
    how, given = Preprocessing.read(preprocessing), samples_of(table)
    starts = range(0, len(given), CHUNK)
    found: list[Text] = []
    for start in progress(starts, f"tokenising, at most {how.max_tokens} tokens", len(starts)):
        found += how.prepared(given[start : start + CHUNK])
    return _rows(found)


def _rows(found: Sequence[Text]) -> np.ndarray:
    rows = np.empty(len(found), dtype=object)
    rows[:] = found
    return rows


def decoder() -> str:
    """What turns text into tokens: this code and the library under it. Part of every cache's key."""
    import tokenizers

    code = b"".join(Path(str(module)).read_bytes() for module in (__file__, texts.__file__))
    return f"{hashlib.sha256(code).hexdigest()}/tokenizers {tokenizers.__version__}"


def collate(rows: np.ndarray, preprocessing: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """The network's inputs for some prepared rows: int64 [N, L] each; L is the longest row's."""
    return Preprocessing.read(preprocessing).collate(list(rows))


def model_inputs(preprocessing: dict[str, Any]) -> tuple[str, ...]:
    """Names of the network's inputs, in order."""
    return Preprocessing.read(preprocessing).inputs


def free_axes(preprocessing: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Axes of every input, beside the batch, that are free: axis -> (name, largest size)."""
    return {1: ("length", Preprocessing.read(preprocessing).max_tokens)}


def lengths(rows: np.ndarray) -> np.ndarray:
    """int64 [N]: how long each prepared row is, so that like can be batched with like."""
    return np.array([len(row.tokens.ids) for row in rows], dtype=np.int64)


def fit(rows: np.ndarray, preprocessing: dict[str, Any]) -> dict[str, float]:
    """How well this preprocessing fits the samples. `coverage` counts in the choice of a backbone: the share of
    all tokens that the network gets to see and knows."""
    counts = Preprocessing.read(preprocessing).counts(list(rows))
    whole, kept, unknown = counts.sum(axis=0)
    cut = counts[:, 0] > counts[:, 1]
    return {
        "coverage": float((kept - unknown) / whole),
        "truncated_share": float(cut.mean()),
        "unknown_share": float(unknown / kept),
        "tokens_mean": float(counts[:, 0].mean()),
        "tokens_p95": float(np.quantile(counts[:, 0], 0.95)),
    }


def preview_rows(table: pd.DataFrame, root: Path, side: int) -> list[Text]:
    """Samples as rows to look at."""
    del root, side
    return samples_of(table)


def picture(row: Text, before: Text | None = None) -> Image.Image:
    """A row as a picture to look at: its first lines, wrapped. Words that `before` has not, or has elsewhere, are on
    yellow; a red stroke stands where words of it are gone."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(_font(), 12)
    words = _words(row)
    new, gone = _differences(_words(before), words) if before is not None else (set(), set())
    image = Image.new("RGB", (PICTURE_PX, 8 + LINE_PX * PICTURE_LINES), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    x, y, blank = 5, 4, 4
    for index, word in enumerate(words):
        for part in _pieces(word, PICTURE_PX - 10, lambda t: draw.textlength(t, font)):
            wide = int(draw.textlength(part, font))
            if x > 5 and x + wide > PICTURE_PX - 5:
                x, y = 5, y + LINE_PX
            if y + LINE_PX > image.height:
                return image
            if index in new:
                draw.rectangle((x - 1, y, x + wide, y + LINE_PX - 2), fill=(255, 226, 120))
            draw.text((x, y), part, fill=(20, 20, 20), font=font)
            if index in gone:
                draw.line((x - 2, y, x - 2, y + LINE_PX - 2), fill=(200, 30, 30), width=2)
            x += wide + blank
    return image


def _words(row: Text) -> list[str]:
    """Those that a picture may have room for; ‖ parts a pair."""
    return (row.text if row.pair is None else f"{row.text} ‖ {row.pair}")[:4000].split()[:200]


def _differences(before: list[str], after: list[str]) -> tuple[set[int], set[int]]:
    """Positions in `after` of words that are new there, and of those in front of which words are gone."""
    import difflib

    new: set[int] = set()
    gone: set[int] = set()
    for kind, _, _, start, end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind in ("insert", "replace"):
            new |= set(range(start, end))
        elif kind == "delete":
            gone.add(start)
    return new, gone


def _pieces(word: str, room: float, wide: Callable[[str], float]) -> list[str]:
    """The word, cut where it is wider than a line: an address, or a script without blanks."""
    pieces = [""]
    for char in word if wide(word) > room else [word]:
        if pieces[-1] and wide(pieces[-1] + char) > room:
            pieces.append("")
        pieces[-1] += char
    return pieces


@functools.cache
def _font() -> str:
    """DejaVu Sans comes with matplotlib: the same glyphs on every machine, for most alphabets."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")


def as_file(row: Mapping[str, Any], root: Path) -> tuple[bytes, str]:
    """A row of the manifest as a file of its own: content, and the end of its name."""
    del root
    pair = row.get("input.text_pair")
    return texts.as_file(row["input.text"], pair if isinstance(pair, str) else None)


def change(row: Text, varied: Text) -> float:
    """How much of a sample a policy changed, 0..1: the share of its words (of the first thousand, as the comparison
    is quadratic) that are no longer in their order."""
    import difflib

    shares = []
    for one, other in ((row.text, varied.text), (row.pair or "", varied.pair or "")):
        before, after = one.split()[:1000], other.split()[:1000]
        same = sum(b.size for b in difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks())
        shares.append((max(len(before), len(after)) - same, max(len(before), len(after))))
    return sum(c for c, _ in shares) / max(1, sum(n for _, n in shares))


def example(preprocessing: dict[str, Any], batch: int) -> tuple[np.ndarray, ...]:
    """Network inputs of the largest size, from a fixed seed; for export and cost."""
    how = Preprocessing.read(preprocessing)
    ids = np.random.default_rng(0).integers(0, how.vocabulary, (batch, how.max_tokens))
    tokens = [texts.Tokens(row.astype(np.int32), np.zeros(how.max_tokens, np.uint8)) for row in ids]
    return how.collate([Text("", None, one) for one in tokens])
