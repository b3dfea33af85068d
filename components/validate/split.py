"""Train, validation and test: stratified by label, copies together, and the same whenever it is drawn.

Samples with the same content (and, with a group attribute, of the same group) form one unit, and a unit is never cut.
Within a label, units are ordered by a hash of (seed, content or group) and cut at the shares: test from the front,
validation from the back. So neither paths nor the order of rows matter, and one sample more moves at most a few others
of its own label, and none between validation and test. Where a share of a label is not a whole number, it is rounded
up for some labels and down for others, so that the shares hold over many small labels too; a new label may change that
rounding for others.

Where samples have several labels or none, a whole set of labels is stratified by like a label if it has enough units to
fill the smallest share; a unit of another set is stratified by its rarest label; and what is still fewer than 3 units
is one stratum together, so that the shares hold however many sets there are.

Tiny labels: with 3 distinct units or more, every split gets one; with 2, train and test; with 1, train.
The user's own split (`attribute.split`) is taken as it is; if it has no validation part, one is cut from train.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable
from typing import Protocol

import pandas as pd

from components import samples
from components.contracts import ATTRIBUTE, SPLITS, Finding, InputError

OWN = f"{ATTRIBUTE}split"
GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, lie more evenly than random numbers: so do the labels' roundings."""
EACH = 3
"""Units that every split can have one of."""
NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip


class Shares(Protocol):
    """What is needed of section `validate.split`."""

    @property
    def train(self) -> float: ...
    @property
    def validation(self) -> float: ...
    @property
    def test(self) -> float: ...
    @property
    def group(self) -> str | None: ...


def assign(table: pd.DataFrame, seed: int, shares: Shares) -> pd.Series:
    """The split of every row; the table has id, sha256 and a label in each, and may have `labels`, those it stands for.

    Raises:
        InputError: `attribute.split` holds a name that is no split, or lacks train or test.
    """
    parts = {"test": shares.test, "validation": shares.validation}
    if OWN not in table or not len(table):
        return cut(table, seed, parts, shares.group)
    own = _own(table)
    missing = [name for name in SPLITS if name not in set(own)]
    if missing == ["validation"]:
        part = own == "train"
        held = {"validation": shares.validation / (shares.train + shares.validation)}
        own[part] = cut(table[part], seed, held, shares.group)
    elif missing:
        raise InputError(
            f"the source's attribute `split` names no {' and no '.join(missing)} samples. Give all of "
            f"{', '.join(SPLITS)} (validation may be left out), or take `split` out of the attributes in ingest.source."
        )
    return own


def _own(table: pd.DataFrame) -> pd.Series:
    told = table[OWN].fillna("").astype(str).str.strip().str.lower()
    unknown = sorted(set(told) - set(NAMES))
    if unknown:
        raise InputError(
            f"the source's attribute `split` holds {', '.join(map(repr, unknown[:5]))}. Known: {', '.join(NAMES)}. "
            "Mend the column, or take `split` out of the attributes in ingest.source."
        )
    return told.map(NAMES)


def cut(table: pd.DataFrame, seed: int, parts: dict[str, float], group: str | None = None) -> pd.Series:
    """`train` for every row but the shares that `parts` takes: from the front `test`, from the back `validation`."""
    unit = units(table, group)
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    contents: defaultdict[str, set[str]] = defaultdict(set)
    for name, label, content in zip(unit, table["label"], table["sha256"]):
        labels[name][label] += 1
        contents[name].add(content)  # copies add nothing to a share
    of = {name: min(counts, key=lambda label: (-counts[label], label)) for name, counts in labels.items()}
    members: defaultdict[str, list[str]] = defaultdict(list)
    for name, stratum in _strata(of, table, parts).items():
        members[stratum].append(name)
    start = samples.keyed_seed(seed, "rounding") / 2**63
    names: dict[str, str] = {}
    for rank, label in enumerate(sorted(members)):
        ordered = sorted(members[label], key=lambda name: samples.keyed_seed(seed, "split", name))
        drawn = _cut_label([len(contents[n]) for n in ordered], parts, (start + rank * GOLDEN) % 1)
        names |= dict(zip(ordered, drawn))
    return unit.map(names).astype(object)


def _strata(of: dict[str, str], table: pd.DataFrame, parts: dict[str, float]) -> dict[str, str]:
    """Unit -> what it is stratified by: its label text, or, of a rare set of several labels, the rarest of them.

    A set of few units must not be a stratum: as every split gets one of each, hundreds of them would set the shares.
    """
    if "labels" not in table or all(len(own) == 1 for own in table["labels"]):
        return of
    held = dict(zip(table["label"], table["labels"]))
    sets, labels = Counter(of.values()), Counter(label for text in of.values() for label in held[text])
    enough = max(EACH, math.ceil(1 / min(parts.values())))

    def stratum(text: str) -> str:
        return text if sets[text] >= enough else min(held[text], key=lambda label: (labels[label], label), default="")

    found = {name: stratum(text) for name, text in of.items()}
    sizes = Counter(found.values())
    return {name: one if sizes[one] >= EACH else "" for name, one in found.items()}


def _cut_label(sizes: list[int], parts: dict[str, float], offset: float) -> list[str]:
    """Names for the ordered units of one label (or other stratum)."""
    total, before, names = sum(sizes), 0, []
    front, back = parts.get("test", 0.0) * total, total - parts.get("validation", 0.0) * total
    for size in sizes:
        place = before + offset * size
        names.append("test" if place < front else "validation" if place >= back else "train")
        before += size
    ends = [name for name in ("test", "validation") if name in parts]
    if len(sizes) == 1:
        return ["train"]
    if len(sizes) == 2:
        return [ends[0], "train"]
    if "test" in parts:
        names[0] = "test"
    if "validation" in parts:
        names[-1] = "validation"
    if "train" not in names:
        names[len(names) // 2] = "train"
    return names


def units(table: pd.DataFrame, group: str | None = None) -> pd.Series:
    """A name for what may not be torn apart: the content hash, or the group that it hangs together with."""
    if group is None:
        return table["sha256"]
    parent: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    column = table[ATTRIBUTE + group]
    nodes = [(s, s if pd.isna(g) or g == "" else f"group {g}") for s, g in zip(table["sha256"], column)]
    for content, of_group in nodes:  # a group leads over a content, so that a new sample does not rename the unit
        one, other = sorted((str(root(content)), str(root(of_group))), key=lambda n: (not n.startswith("group "), n))
        parent[other] = one
    return pd.Series([root(content) for content, _ in nodes], index=table.index, dtype=object)


def findings(accepted: pd.DataFrame) -> list[Finding]:
    """What is wrong with the split itself, wherever it came from; `labels` holds the labels of each sample."""
    found = []
    empty = [name for name in SPLITS if not (accepted["split"] == name).any()]
    accepted = accepted.assign(label=accepted["labels"]).explode("label")
    accepted = accepted[accepted["label"].notna()]
    of = {name: accepted[accepted["split"] == name] for name in SPLITS}
    if empty:
        told = f"no samples in {', '.join(empty)}; bring more labelled samples, or change validate.split"
        found.append(Finding("split", "error", told))
    trained = set(of["train"]["label"])
    unseen = accepted[~accepted["label"].isin(trained)]
    if len(unseen):
        told = f"{_some(unseen['label'])} in no training sample, so it cannot be learned; move some to train"
        ids = sorted(set(unseen["id"]))
        found.append(Finding("split", "error", told, len(ids), tuple(ids[:20])))
    for name in ("validation", "test"):
        lacking = sorted(trained - set(of[name]["label"]))
        if lacking and name not in empty:
            told = f"{_some(pd.Series(lacking))} in no {name} sample, so it is not measured there; bring more samples"
            found.append(Finding("split", "warning", told))
    return found


def _some(labels: pd.Series) -> str:
    names = sorted(set(labels))
    told = ", ".join(f"`{name}`" for name in names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} label(s) ({told})"
