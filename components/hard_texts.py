"""Texts on which two tokenizers part ways: every script, marks that combine, invisible and unassigned signs, over-long
words, tokens of tokenizers written out. The same texts each time; none of them is anybody's data."""

from __future__ import annotations

import unicodedata

import numpy as np

WRITTEN = (
    "a",
    ".",
    "\u200b",
    "\U0001f389",
    "the food was good",
    "THE FOOD WAS BAD",
    "Don't stop, it's John's; we'll go.",
    "12,345.67 $5 50% 1e-9 007 3\u00bd \u00b2",
    "https://example.org/a?b=c&d=e#f me@example.org C:\\x\\y /usr/bin",
    "unaffable internationalization antidisestablishmentarianism",
    "cafe\u0301 caf\u00e9 CAF\u00c9 na\u00efve \u00dcber",
    "a\u0301\u0323 e\u0308 o\u0302\u0301",
    "\u0130stanbul \u0131 \u1e9e \u00df Stra\u00dfe",
    "\ufb01ne \u2126 \u212b \u2460 \u3392",
    "\U0001f600\U0001f600 what a day \U0001f44d\U0001f3fd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1ee\U0001f1f1",
    "\u0627\u0644\u0637\u0639\u0627\u0645 \u062c\u064e\u064a\u0651\u062f \u062c\u062f\u0627",
    "\u05d4\u05d0\u05d5\u05db\u05dc great \u05de\u05b0\u05d0\u05d3",
    "\u202ethe food was bad\u202c",
    "\u98df\u3079\u7269\u306f\u826f\u3044",
    "\u53ef\u4ee5 good \u53ef",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U00020000\U00020001 \U0001d4b3 \U0001d4df\U0001d4fb",
    "one\r\ntwo\rthree\nfour\n\n five\tsix",
    "a\u00a0b\u2003c\u3000d\u2028e\u2029f",
    "a\u200bb\u200cc\u200dd\u2060e\u00adf",
    "the \x01\x02 \x7f\x85 food",
    "!!! ??? ... ---- ====",
    "\u201cquoted\u201d \u2018so\u2019 \u2014 \u2026 \u00ab\u00bb",
    "[CLS] the [SEP] food [PAD] [MASK] [UNK]",
    "<s> the </s> food <pad> <mask> <unk> <|endoftext|>",
    "##ing the ## food \u2581the \u0120the",
    "<p>the <b>food</b> &amp; service</p>",
    "a  b   c    d",
    "x\ufffdy \ue000 \U0010ffff \u0378",
    "snake_case camelCase kebab-case",
    "a" * 100,
    "a" * 101,
    "a" * 3000,
    "x " * 3000,
    "\U0001f600" * 700,
    "the food was very good and " * 200,
    "." * 500,
)
BLOCK = 0x80
LAST = 0x20000
NUM_MIXED = 100


def texts() -> list[str]:
    """All of them: those written above, some characters of every block of Unicode, and mixtures of both."""
    blocks = [found for start in range(0x80, LAST, BLOCK) if (found := _block(start))]
    rng = np.random.default_rng(0)
    pieces = [piece for text in WRITTEN for piece in text.split(" ")[:20] if piece][:400] + blocks
    mixed = [" ".join(pieces[i] for i in rng.integers(0, len(pieces), rng.integers(2, 9))) for _ in range(NUM_MIXED)]
    return [*WRITTEN, *blocks, *mixed]


def _block(start: int) -> str:
    """At most 16 of its characters, in words of four; "" where a block has none, or others of the same kind as before
    (the many thousands of Chinese and Korean signs)."""
    signs = [
        chr(code) for code in range(start, start + BLOCK) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")
    ]
    if not signs or (0x3500 < start < 0xD700 and start % 0x1000):
        return ""
    chosen = signs[:: max(1, len(signs) // 16)][:16]
    return " ".join("".join(chosen[i : i + 4]) for i in range(0, len(chosen), 4))
