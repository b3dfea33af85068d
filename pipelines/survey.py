"""What a user's data are: which source reads them, which labels they have, how large the images or long the texts.

Looks and counts; what it had to guess it tells in a sentence each, with the key to change. Nothing is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components import plugins
from components.contracts import Found, InputError
from components.ingest.table_files import SUFFIXES
from components.job import Job
from components.preprocessing.image_classification import Unreadable, decode

LABEL_NAMES = (
    "label", "class", "category", "target", "y", "species", "labels", "class_name", "classname", "label_name",
    "category_name", "diagnosis", "dx", "breed", "kind", "type",
)  # fmt: skip
ID_NAMES = ("id", "image_id", "sample_id", "uid", "uuid", "key")
SPLIT_NAMES = {
    "train", "training", "validation", "valid", "val", "dev", "test", "testing", "holdout",
}  # fmt: skip
"""What validate's split knows (components/validate/split.py)."""
MAX_LOOKED_AT = 120
MAX_TEXTS_LOOKED_AT = 2000
BYTES_A_TOKEN = {True: 3.5, False: 2.3}
"""Of ASCII, and of other writing: English mails have 3.5 in the vocabulary of BERT, a Russian, Chinese, Japanese or
Arabic sentence 2.1 to 2.8."""
_NOWHERE = Path("/nowhere")  # a project that holds no data, so that every path found is absolute


@dataclass
class Survey:
    """What was found, in the words of params.yaml."""

    data: Path
    """ingest.data"""
    source: dict[str, Any]
    """ingest.source"""
    task: str = "image_classification"
    """run.task"""
    labels: Counter[str] = field(default_factory=Counter)
    attributes: list[str] = field(default_factory=list)
    """bias.attributes"""
    own_split: bool = False
    side: int = 0
    """Median of the images' longer sides, in pixels."""
    tokens: tuple[float, float] = (0.0, 0.0)
    """Of a typical text, and of all but the longest twentieth; estimated without a tokenizer."""
    told: list[str] = field(default_factory=list)

    @property
    def noun(self) -> str:
        """What its samples are called."""
        return {"image_classification": "images", "text_classification": "texts"}[self.task]


def survey(data: Path) -> Survey:
    """Look at a folder of class folders, or at a table.

    Raises:
        InputError: it is neither; what is missing, and what to do.
    """
    data = Path(os.path.abspath(data))
    if not data.exists():
        raise InputError(f"--data: {data} is not there")
    if data.is_file() and data.suffix.lower() not in SUFFIXES:
        raise InputError(f"--data: {data.name} is neither a folder nor a table ({', '.join(SUFFIXES)})")
    if data.is_file():
        from pipelines.tables import survey_table

        found = survey_table(data)
    else:
        found = _survey_folder(data)
    return _counted(found)


# --- folders ---


def _survey_folder(data: Path) -> Survey:
    files = find({"name": "image_folder"}, data)
    images = [f.id.split("/")[:-1] for f in files if not f.reason]
    tables = sorted(p for p in data.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
    if not any(images) and len(tables) == 1:  # a table and its images in one folder
        from pipelines.tables import survey_table

        return survey_table(tables[0])
    if not images:
        kinds = Counter(os.path.splitext(f.id)[1] or "no suffix" for f in files)
        there = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5))
        one = f" Give one table as --data, such as {tables[0].name}." if tables else ""
        raise InputError(f"--data: no images in {data}. {f'It holds {there}.' if there else 'It is empty.'}{one}")
    if not any(images):
        raise InputError(
            f"--data: {len(images)} images lie directly in {data}, and none in a class folder. Put them into a "
            "folder for each label, or give a table with a path and a label column."
        )
    source, told = _levels(images)
    if tables:
        told.append(f"{tables[0].name} was not used; give it as --data if it holds the labels")
    return Survey(data, source, own_split="split" in source.get("attributes", {}), told=told)


def _levels(images: list[list[str]]) -> tuple[dict[str, Any], list[str]]:
    """The image_folder source for the folders that images lie in, and what was assumed about them."""
    told: list[str] = []
    level, depth = 1, max(map(len, images))
    while level < depth and len(names := _names(images, level)) == 1:
        told.append(f"everything lies in the folder {names.pop()}, so labels begin one level below it")
        level += 1
    source: dict[str, Any] = {"name": "image_folder"}
    parts = _names(images, level)
    if level < depth and {p.lower() for p in parts} <= SPLIT_NAMES:
        whole = any(p.lower().startswith("train") for p in parts) and {p.lower() for p in parts} & {
            "test", "testing", "holdout",
        }  # fmt: skip
        source["attributes"] = {"split" if whole else "part": level}
        how = "taken as your own split" if whole else "not a whole split (train and test), so a new one is made"
        told.append(f"the folders {', '.join(sorted(parts))} are {how} (attribute of ingest.source)")
        level += 1
    if level > 1:
        source["label_level"] = level
    which = "first folder" if level == 1 else f"folder of level {level}"
    inner = _names(images, level + 1)
    hint = f"; if {_some(inner)} inside are the labels, set label_level: {level + 1}" if inner else ""
    told.append(f"the label of an image is the name of its {which}{hint} (ingest.source)")
    return source, told


def _names(images: list[list[str]], level: int) -> set[str]:
    return {folders[level - 1] for folders in images if len(folders) >= level}


# --- both ---


def find(source: dict[str, Any], data: Path) -> list[Found]:
    """What the source finds, with absolute paths."""
    choice = plugins.choose("ingest.sources", source)
    return list(choice.load().find(choice.params, data, Job.at(_NOWHERE)))


def _counted(found: Survey) -> Survey:
    """Count labels, look at some of the samples, and refuse what cannot become a project."""
    samples = find(found.source, found.data)
    usable = [s for s in samples if not s.reason]
    found.labels = Counter(s.label for s in usable if s.label is not None)
    reasons = Counter(s.reason for s in samples if s.reason)
    if len(found.labels) < 2:
        one = f"one label only ({next(iter(found.labels))})" if found.labels else "no label"
        raise InputError(
            f"--data: {found.data} has {one} for {len(usable)} {found.noun}; a classifier needs two or more. "
            + " ".join(found.told)
        )
    ordered = found.labels.most_common()
    found.told.insert(
        0,
        f"{sum(found.labels.values())} labelled {found.noun}, {len(ordered)} labels: from {ordered[0][1]} "
        f"({ordered[0][0]}) down to {ordered[-1][1]} ({ordered[-1][0]})",
    )
    if unlabelled := len(usable) - sum(found.labels.values()):
        found.told.append(f"{unlabelled} {found.noun} have no label and will be set aside")
    for reason, count in sorted(reasons.items()):
        first = next(s for s in samples if s.reason == reason)
        found.told.append(f"{count} set aside as {reason}, for example {first.id}")
    look = {"image_classification": _look_at_images, "text_classification": _look_at_texts}[found.task]
    look([s.inputs for s in usable], found)
    return found


def _look_at_texts(inputs: list[dict[str, str]], found: Survey) -> None:
    import numpy as np

    task = plugins.load("tasks", found.task)
    problems: Counter[str] = Counter()
    words, tokens, scripts = [], [], Counter[str]()
    some = inputs[:: max(1, len(inputs) // MAX_TEXTS_LOOKED_AT)]
    for one in some:
        try:
            seen = task.inspect(one, _NOWHERE)
        except task.Unreadable as problem:
            problems[problem.reason] += 1
            continue
        words.append(seen.properties["num_words"])
        tokens.append(2 + sum(len(t.encode()) / BYTES_A_TOKEN[t.isascii()] for t in one.values()))
        scripts[seen.attributes["script"]] += 1
    if not words:
        raise InputError(f"--data: none of {len(some)} texts looked at can be used: {dict(problems)}")
    found.tokens = (float(np.mean(tokens)), float(np.quantile(tokens, 0.95)))
    told = ", ".join(f"{n} {script}" for script, n in scripts.most_common(4))
    found.told.append(
        f"of {len(some)} texts looked at: {told}; typically {np.median(words):.0f} words, "
        f"{np.quantile(words, 0.95):.0f} in the long ones"
    )
    if problems:
        found.told.append(f"{problems.total()} of these cannot be used ({', '.join(sorted(problems))})")


def _look_at_images(inputs: list[dict[str, str]], found: Survey) -> None:
    import numpy as np

    paths = [Path(one["path"]) for one in inputs]
    step = max(1, len(paths) // MAX_LOOKED_AT)
    sizes: list[tuple[int, int]] = []
    kinds: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    brightest = 0
    for path in paths[::step]:
        try:
            image, _ = decode(path.read_bytes() if path.is_file() else b"")
        except Unreadable as problem:
            problems[problem.reason] += 1
            continue
        sizes.append(image.size)
        kinds[_kind(image)] += 1
        if image.mode.startswith("I;16"):
            brightest = max(brightest, int(np.asarray(image).max()))
    looked = len(sizes) + problems.total()
    if not sizes:
        raise InputError(f"--data: none of {looked} images looked at can be read: {dict(problems)}. First: {paths[0]}")
    found.side = int(np.median([max(size) for size in sizes]))
    middle = (int(np.median([w for w, _ in sizes])), int(np.median([h for _, h in sizes])))
    told = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    found.told.append(f"of {looked} images looked at: {told}; typically {middle[0]}x{middle[1]} px")
    if problems:
        found.told.append(f"{problems.total()} of these cannot be read ({', '.join(sorted(problems))})")
    if 0 < brightest < 8192:
        found.told.append(
            f"the 16-bit images reach {brightest} of 65535 only, so they come out dark: scale them to the full range"
        )


def _kind(image: Any) -> str:
    names = {"L": "grey", "1": "black and white", "P": "palette", "RGB": "RGB", "RGBA": "RGBA", "LA": "grey with alpha"}
    return "16-bit grey" if image.mode.startswith("I") else names.get(image.mode, image.mode)


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")
