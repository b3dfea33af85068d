"""Freeze how training samples are varied, and show it.

Reads: validate/accepted.parquet (training samples only).
Writes: policy.json (policy with its options, seed, note), preview.png (one row a sample: as it is, then as the first
epochs will see it, but for the size of images: 96 px here, the chosen backbone's in training).
Decides: the policy and its options, run.seed; for the picture the training samples. What a policy makes of a text by a
large network is kept in the project's cache of variants, which training goes on with.
Fails: a policy that is not made for run.task, or no training sample (InputError).
Does not check: that labels survive the policy (a flipped 2 is no 2). Look at the picture. Nor does it write varied
samples: `finetune` draws them anew in each epoch, keyed by (seed, epoch, sample id).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from components import params, plugins, samples
from components.contracts import InputError, read_table, write_atomic, write_json
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

NEEDS = ("validate",)
NUM_SHOWN, WIDEST = 7, 1400
"""Varied samples beside the one as it is, and pixels of a row's cells together: wide cells are fewer."""
CELL, GAP, MARGIN = 96, 6, 120
"""Pixels of an image's side, between cells, and left of them for the label."""


class Params(params.Params):
    """Section `augment`."""

    policy: Annotated[Choice, Family("augment.policies")]
    """How a training sample is varied."""
    preview_samples: int = Field(ge=1, le=100)
    """Rows of the preview picture."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_previewed, num_labels_shown and mean_change (0..1: how much of a sample the task says changed)."""
    policy = params.policy.load()
    if job.run.task not in policy.TASKS:
        able = [n for n in plugins.names(params.policy.family) if job.run.task in _tasks(params.policy.family, n)]
        raise InputError(
            f"augment.policy: {params.policy.name} is for {', '.join(policy.TASKS)}, but run.task is {job.run.task}. "
            f"For it: {', '.join(able) or 'none'}"
        )
    table = read_table(job.source("validate", "accepted.parquet"))
    train = table[table["split"] == "train"]
    if not len(train):
        raise InputError("augment: no training sample was accepted. Look at artifacts/validate/findings.json.")
    chosen = pick(train, params.preview_samples, job.run.seed)
    vary = policy.build(params.policy.params, cache=job.cache("variants"), device=job.run.device)
    task = plugins.load("tasks", job.run.task)
    originals = task.preview_rows(chosen, job.root, CELL)
    width = max(task.picture(row).width for row in originals)
    shown = max(1, min(NUM_SHOWN, WIDEST // (width + GAP) - 1))
    rows, changes = [], []
    for row, sample in zip(originals, job.progress(chosen["id"], "varying the samples to show", len(chosen))):
        varied = [vary(row, samples.keyed_rng(job.run.seed, epoch, sample)) for epoch in range(shown)]
        rows.append([task.picture(row), *(task.picture(v, row) for v in varied)])
        changes += [task.change(row, v) for v in varied]
    write_json(job.out("policy.json"), _frozen(params.policy, vary, job.run.seed))
    write_atomic(job.out("preview.png"), _png(sheet(list(chosen["label"]), rows)))
    job.say(f"policy {params.policy.name}; look at artifacts/augment/preview.png: does every row keep its label?")
    return {
        "num_previewed": float(len(chosen)),
        "num_labels_shown": float(chosen["label"].nunique()),
        "mean_change": float(np.mean(changes)),
    }


def _frozen(policy: Choice, vary: Any, seed: int) -> dict[str, Any]:
    """What training needs of the policy; `provenance` where it rests on data or a network from outside."""
    frozen = {
        "policy": policy.spec(),
        "seed": seed,
        "note": "training samples only; random numbers keyed by (seed, epoch, sample id)",
    }
    provenance = getattr(vary, "provenance", None)
    return {**frozen, "provenance": provenance} if provenance else frozen


def _tasks(family: str, name: str) -> tuple[str, ...]:
    return tuple(plugins.load(family, name).TASKS)


def pick(train: pd.DataFrame, num: int, seed: int) -> pd.DataFrame:
    """Samples to show: one of each label before a second one of any; by a hash of the id, in the labels' order."""
    keys = [samples.keyed_seed(seed, "preview", i) for i in train["id"]]
    ordered = train.assign(_key=keys).sort_values("_key", kind="stable")
    turn = ordered.groupby("label").cumcount()
    first = ordered.assign(_turn=turn).sort_values(["_turn", "_key"], kind="stable").head(num)
    return first.sort_values(["label", "_key"], kind="stable").drop(columns=["_key", "_turn"])


def sheet(labels: list[str], rows: list[list[Image.Image]]) -> Image.Image:
    """The picture: a row a sample, its label to the left, column heads above; each cell in the middle of its place."""
    from PIL import Image, ImageDraw, ImageFont

    width = max(CELL, *(cell.width for row in rows for cell in row))
    heights = [max(CELL, *(cell.height for cell in row)) for row in rows]
    top, step = 28, width + GAP
    size = (MARGIN + step * len(rows[0]) + GAP, top + sum(h + GAP for h in heights) + GAP)
    picture = Image.new("RGB", size, (245, 245, 245))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    for column in range(len(rows[0])):
        head = f"epoch {column}" if column else "as it is"
        draw.text((MARGIN + step * column + width / 2, top / 2), head, fill=(60, 60, 60), font=font, anchor="mm")
    y = top
    for label, row, height in zip(labels, rows, heights):
        draw.text((MARGIN - 8, y + height / 2), _short(label), fill=(20, 20, 20), font=font, anchor="rm")
        for column, cell in enumerate(row):
            x = MARGIN + step * column
            picture.paste(cell, (x + (width - cell.width) // 2, y + (height - cell.height) // 2))
        y += height + GAP
    return picture


def _short(label: str, most: int = 14) -> str:
    line = " ".join(label.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _png(picture: Image.Image) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
