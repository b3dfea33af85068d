"""Texts as they come in real files: scripts, signs and lengths that nobody thinks of, and files that are no text."""

from __future__ import annotations

import factories
import numpy as np

ODD = (
    "😀😀 what a day 👍🏽 👨\u200d👩\u200d👧 🇮🇱",
    "🎉",
    "الطعام جيد جدا",
    "האוכל היה great מאוד",
    "\u202ethe food was bad\u202c",
    "食べ物は良い",
    "cafe\u0301 caf\u00e9 CAF\u00c9",
    "\ufeffthe food was good",
    " \ufeff\ufeff the table",
    "one\r\ntwo\rthree\nfour",
    "\u200b",
    "\u200b\u200c\u200d",
    "\x01\x02 the \x7f food",
    "a",
    ".",
    "!!! ??? ...",
    "[CLS] the [SEP] food [PAD] [MASK] [UNK]",
    "<p>the <b>food</b> &amp; service</p>",
    "THE FOOD WAS BAD",
    "the\u00a0food\u2003was\u3000good",
    "\U0001d4df\U0001d4fb\U0001d4f2\U0001d4fb\U0001d4ee",
    "the food was very good and " * 600,
    "a" * 20_000,
    "😀" * 3_000,
    "x " * 400_000,
)
"""Texts that a network answers: emoji, from right to left, marks, controls, tokens of tokenizers, over-long ones."""

REFUSED = {
    "empty_text": [b"", b" \r\n\t ", "\u00a0\u2003\u3000".encode(), b"\xef\xbb\xbf", b"\xef\xbb\xbf \xef\xbb\xbf\n"],
    "nul_byte": [b"the\0food", b"\0"],
    "invalid_utf8": [b"the food \xff", "the food".encode("utf-16")],
    "too_long": [b"a" * 1_000_001],
}
"""Reason -> contents of files that are refused."""


def held_out(num: int = 200, seed: int = 1) -> list[bytes]:
    """Contents of text files of many lengths, those above among them, in no order."""
    rng = np.random.default_rng(seed)
    given = [*(text.encode() for text in ODD), *(content for contents in REFUSED.values() for content in contents)]
    while len(given) < num:
        label = sorted(factories.WORDS)[len(given) % 2]
        given.append(" ".join(factories.sentence(label, rng) for _ in range(int(rng.integers(1, 5)))).encode())
    return [given[i] for i in rng.permutation(len(given))]
