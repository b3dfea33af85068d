"""Back-translation: a text goes into another language and back, and comes home in other words.

What: line by line, and long lines sentence by sentence, one network translates and another translates back. The best
`num_variants` translations of a beam search come back one by one, so each gives a variant. Line breaks stay where they
are; blank lines, and what follows behind `max_tokens`, stay as they are. The variants of a text are made when it is
first met and kept in the project's cache; each epoch draws one of them for `share` of the samples. Of a pair of texts,
one is changed.
When: prose of whole sentences in a language with two good translators; the whole phrasing varies and not single
words, which the other policies cannot do.
Not when: spelling, style, names, code, headers or addresses are the label (spam, authorship, language): translators
normalise them all. Negation and irony are lost now and then. Very short texts come back as they were, or invented.
Look at the label-keeping rate that `finetune` reports before you trust it. Networks that must be told the language
by more than a prefix (M2M100, NLLB, mBART) do not fit.
Settings: forth and back (each a repository with its commit, or a folder), share, num_variants, max_tokens.
Cost: two beam searches over every training text in the first epoch; nothing after. They go token by token: seconds a
text of 128 tokens on two cores for MarianMT's usual size, so hours for 5,000 texts (reckoned, not measured). Start
with few samples, or on a GPU.
Evidence here: tests/components/augment/test_networks.py, with tiny random networks: that it is sound, not that it
helps. No pretrained translators were to be had to measure it by.
Source: Sennrich, Haddow and Birch, Improving Neural Machine Translation Models with Monolingual Data, ACL 2016; as
augmentation in Xie et al., Unsupervised Data Augmentation for Consistency Training, NeurIPS 2020, section 2.2.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from components import params
from components.augment import networks, words
from components.augment.networks import Loaded, Network
from components.augment.variants import Variants, code

if TYPE_CHECKING:
    from components.preprocessing.text_classification import Text

TASKS = ("text_classification",)
BATCH = 16


class Params(params.Params):
    """Options."""

    forth: Network
    """From the texts' language into another: {model, revision}, or {weights: {source: file, path, sha256}}."""
    back: Network
    """From that one back."""
    prefix_forth: str = ""
    """Put before each sentence, for networks that are told what to do so: "translate English to German: "."""
    prefix_back: str = ""
    """The same on the way back."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Of the samples in an epoch, so many are varied."""
    num_variants: int = Field(default=2, ge=1, le=16)
    """Variants of each text, and beams of the search."""
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Of the text; what follows stays as it is."""


class Vary:
    """A function from a text and random numbers to a new text, not yet tokenised."""

    def __init__(self, options: Params, cache: Path | None, device: str) -> None:
        self.options, self.provenance = options, {}
        if options.share:
            forth, back = (networks.load(n, "AutoModelForSeq2SeqLM", device) for n in (options.forth, options.back))
            self.provenance = {"forth_sha256": forth.sha256, "back_sha256": back.sha256}
            own = (options.model_dump(exclude={"forth", "back", "share"}), code(__file__, networks.__file__))
            computed = networks.arithmetic(forth.device)
            make = _Translator(options, forth, back).there_and_back
            self.variants = Variants(make, cache, "back_translation", own, self.provenance, computed)

    def __call__(self, row: Text, rng: np.random.Generator) -> Text:
        drawn = rng.random() < self.options.share
        return words.varied(row, rng, self.variants.draw if drawn else lambda text, _: text)


def build(params: Params, *, cache: Path | None = None, device: str = "cpu") -> Vary:
    """See Vary; `cache` is a folder for the variants, without which they are made anew by every process.

    Raises:
        WeightsError: a network is not there, is not the pinned one, or is none of this kind.
    """
    return Vary(params, cache, device)


class _Translator:
    """Makes the variants of one text."""

    def __init__(self, options: Params, forth: Loaded, back: Loaded) -> None:
        self.options, self.forth, self.back = options, forth, back

    def there_and_back(self, text: str) -> list[str]:
        """Variants of a text; a sentence of which nothing comes back stays as it was."""
        pieces = _cut(text)
        sentences = self._seen(pieces[::2])
        if not sentences:
            return []
        number = self.options.num_variants
        abroad = _translated(self.forth, [self.options.prefix_forth + s for s in sentences.values()], number)
        home = _translated(self.back, [self.options.prefix_back + s for s in abroad], 1)
        variants = []
        for which in range(number):
            varied = list(pieces)
            for order, (place, sentence) in enumerate(sentences.items()):
                varied[2 * place] = home[order * number + which] or sentence
            variants.append("".join(varied))
        return variants

    def _seen(self, sentences: list[str]) -> dict[int, str]:
        """Place -> sentence, of those with a letter in them, as many as max_tokens holds; at least one."""
        seen: dict[int, str] = {}
        left = self.options.max_tokens
        for place, sentence in enumerate(sentences):
            if left <= 0:
                break
            if any(c.isalpha() for c in sentence[:2000]):
                most = self.forth.max_tokens
                size = len(self.forth.tokenizer(sentence[: 40 * most], truncation=True, max_length=most)["input_ids"])
                left -= size
                if size < most:  # a longer one would lose its end
                    seen[place] = sentence
        return seen


def _cut(text: str) -> list[str]:
    """Sentences and lines at even places, the blanks between them at odd ones."""
    pieces, start = [], 0
    for blank in re.finditer(r"\s+", text):
        if "\n" in blank[0] or text[blank.start() - 1] in ".!?…":
            pieces += [text[start : blank.start()], blank[0]]
            start = blank.end()
    return [*pieces, text[start:]]


def _translated(network: Loaded, sentences: list[str], number: int) -> list[str]:
    """The best `number` translations of each sentence, one after the other; by search alone, without random numbers."""
    import torch

    found: list[str] = []
    for start in range(0, len(sentences), BATCH):
        batch = sentences[start : start + BATCH]
        encoded = network.tokenizer(batch, padding=True, truncation=True, max_length=network.max_tokens,
                                    return_tensors="pt").to(network.device)  # fmt: skip
        longest = min(network.max_tokens, 16 + 2 * int(encoded["input_ids"].shape[1]))
        with torch.inference_mode():
            ids = network.model.generate(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], do_sample=False,
                num_beams=max(number, 2), num_return_sequences=number, max_new_tokens=longest,
            )  # fmt: skip
        found += [" ".join(t.split()) for t in network.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return found
