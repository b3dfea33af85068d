"""Masked language model: words give way to others that a network thinks likely in their place.

What: of the words among the first `max_tokens` tokens, `share` is masked at once; in each place one of the `top`
likeliest words of the network's vocabulary is drawn by its probability, the word itself excluded. Function words,
negations, numbers and addresses stay; so do capitals, punctuation and what follows behind `max_tokens`. `num_variants`
variants of each text are made when it is first met and kept in the project's cache; each epoch draws one of them. Of a
pair of texts, one is changed.
When: few samples of prose in the network's language and register; better fitting words than a dictionary's.
Not when: the label hangs on single words: the network fills in what is likely, not what means the same, so "a great
film" becomes "a bad film" as readily as "a good film" (sentiment, stance, entailment), and spam's odd words become
plain ones. Look at the label-keeping rate that `finetune` reports before you trust it. A network fine-tuned on your
own labels (conditional BERT) would keep them better; that is not done here.
Settings: network (a repository with its commit, or a folder), share, top, num_variants, max_tokens.
Cost: one pass of the network over `num_variants` copies of every training text in the first epoch; nothing after. For
a BERT of base size and 4 variants of 128 tokens that is some 90 GFLOP a text: about a second on two cores, so over an
hour for 5,000 texts, and minutes on a GPU (reckoned, not measured).
Evidence here: tests/components/augment/test_networks.py, with a tiny random network: that it is sound, not that it
helps. No pretrained masked language model was to be had to measure it by.
Source: Kobayashi, Contextual Augmentation: Data Augmentation by Words with Paradigmatic Relations, NAACL 2018; Wu et
al., Conditional BERT Contextual Augmentation, 2018.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from components import params, samples
from components.augment import networks, words
from components.augment.networks import Network
from components.augment.variants import Variants, code

if TYPE_CHECKING:
    from components.preprocessing.text_classification import Text

TASKS = ("text_classification",)


class Params(params.Params):
    """Options."""

    network: Network
    """A masked language model (BERT, RoBERTa, ...): {model, revision}, or {weights: {source: file, path, sha256}}."""
    share: float = Field(default=0.1, ge=0, le=0.5)
    """Of the words, so many are replaced; at least one, unless it is 0."""
    top: int = Field(default=10, ge=1, le=1000)
    """Likeliest words that are drawn from."""
    num_variants: int = Field(default=4, ge=1, le=64)
    """Variants of each text."""
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Of the text; what follows stays as it is."""


class Vary:
    """A function from a text and random numbers to a new text, not yet tokenised."""

    def __init__(self, options: Params, cache: Path | None, device: str) -> None:
        self.options, self.provenance = options, {}
        if options.share:
            filler = _Filler(options, networks.load(options.network, "AutoModelForMaskedLM", device))
            self.provenance = {"network_sha256": filler.network.sha256}
            files = (__file__, networks.__file__, words.__file__, samples.__file__)
            own = (options.model_dump(exclude={"network"}), code(*files))
            computed = networks.arithmetic(filler.network.device)
            self.variants = Variants(filler.fill, cache, "masked_lm", own, self.provenance, computed)

    def __call__(self, row: Text, rng: np.random.Generator) -> Text:
        return words.varied(row, rng, self.variants.draw if self.options.share else lambda text, _: text)


def build(params: Params, *, cache: Path | None = None, device: str = "cpu") -> Vary:
    """See Vary; `cache` is a folder for the variants, without which they are made anew by every process.

    Raises:
        WeightsError: the network is not there, is not the pinned one, or is none of this kind.
    """
    return Vary(params, cache, device)


class _Filler:
    """Makes the variants of one text."""

    def __init__(self, options: Params, network: networks.Loaded) -> None:
        self.options, self.network = options, network
        tokenizer = network.tokenizer
        if tokenizer.mask_token is None or not tokenizer.is_fast:
            raise networks.WeightsError("network: its tokenizer has no mask, or is not a tokenizer.json")
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        pieces = any(t.startswith("##") for t in tokens)  # else a mark stands before a word's first piece
        marks = () if pieces else tuple(m for m in ("Ġ", "▁") if any(t.startswith(m) for t in tokens))
        self.whole = np.array([_is_word(t, marks) for t in tokens])
        self.words = [t.lstrip("Ġ▁") for t in tokens]

    def fill(self, text: str) -> list[str]:
        """Variants of a text; none where no word of it can be replaced."""
        found, blanks = words.split(text)
        seen = self._num_seen(text)
        cores = [words.parts(word) for word in found[:seen]]
        able = [i for i, (_, core, _) in enumerate(cores) if words.replaceable(core)]
        if not able or self.network.tokenizer.mask_token in text:
            return []
        rng = samples.keyed_rng(0, 0, text)
        number = min(len(able), max(1, round(self.options.share * len(cores))))
        chosen = [np.sort(rng.choice(able, number, replace=False)).tolist() for _ in range(self.options.num_variants)]
        copies = [list(found) for _ in chosen]
        for copy, places in zip(copies, chosen):
            for i in places:
                copy[i] = cores[i][0] + self.network.tokenizer.mask_token + cores[i][2]
        asked = self._ask([words.join(copy[:seen], blanks[: seen + 1]) for copy in copies])
        for copy, places, likely in zip(copies, chosen, asked):
            for order, i in enumerate(places):
                before, core, after = cores[i]
                word = self._drawn(likely[order], core, rng) if order < len(likely) else core
                copy[i] = before + words.cased(core, word) + after
        return [words.join(copy, blanks) for copy in copies]

    def _num_seen(self, text: str) -> int:
        """Words that the network sees whole."""
        text = text[: 40 * self.options.max_tokens]
        encoded = self.network.tokenizer(text, return_offsets_mapping=True, **self._cut())
        end = max((stop for _, stop in encoded["offset_mapping"]), default=0)
        return len(text[:end].split()) - int(end < len(text) and not text[end].isspace())

    def _cut(self) -> dict[str, Any]:
        return {"truncation": True, "max_length": min(self.options.max_tokens, self.network.max_tokens)}

    def _ask(self, masked: list[str]) -> list[np.ndarray]:
        """Of each text the log-probabilities at its masks: float64 [masks, vocabulary]."""
        import torch

        encoded = self.network.tokenizer(masked, padding=True, return_tensors="pt", **self._cut())
        inputs = {k: v.to(self.network.device) for k, v in encoded.items()}
        with torch.inference_mode():
            logits = self.network.model(**inputs).logits
        at_masks = encoded["input_ids"] == self.network.tokenizer.mask_token_id
        return [row[mask].double().log_softmax(-1).cpu().numpy() for row, mask in zip(logits, at_masks)]

    def _drawn(self, likely: np.ndarray, core: str, rng: np.random.Generator) -> str:
        allowed = np.where(self.whole[: len(likely)], likely[: len(self.whole)], -np.inf)
        order = np.argsort(-allowed, kind="stable")[: self.options.top + 4]  # the word itself, in other capitals too
        order = np.array([i for i in order if np.isfinite(allowed[i]) and self.words[i].lower() != core.lower()], int)
        if not len(order):
            return core
        chances = np.exp(allowed[order[: self.options.top]])
        return self.words[int(rng.choice(order[: self.options.top], p=chances / chances.sum()))]


def _is_word(token: str, marks: tuple[str, ...]) -> bool:
    """A whole word that may stand for another: by the mark before a word's first piece, or by WordPiece's ##."""
    return (not marks or token.startswith(marks)) and words.replaceable(token.lstrip("Ġ▁"))
