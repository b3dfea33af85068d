"""Get the emoji of two studios through npm, as two tables with their images: data/twitter and data/google.

Run in a project's root: `python examples/emoji/prepare.py`. About 130 MB are fetched and 45 MB kept.
Both packages are MIT; the drawings are under the licences that the packages name (Twemoji CC-BY 4.0, Noto OFL).
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VERSION = "16.0.0"
STUDIOS = ("twitter", "google")
LEFT_OUT = "Component"  # five hair styles and skin tones: too few to learn


def main() -> int:
    """Returns the exit code."""
    if shutil.which("npm") is None:
        print("npm is not on the PATH; it fetches the two packages", file=sys.stderr)
        return 2
    for studio in STUDIOS:
        target = Path("data") / studio
        if (target / "emoji.csv").exists():
            print(f"{target} is there already")
            continue
        with tempfile.TemporaryDirectory() as folder:
            name = f"emoji-datasource-{studio}@{VERSION}"
            print(f"fetching {name}")
            done = subprocess.run(
                ["npm", "pack", name, "--silent"], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"npm could not fetch {name}: {done.stderr.strip()}", file=sys.stderr)
                return 2
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
                archive.extractall(folder)
            print(f"{target}: {write(Path(folder) / 'package', studio, target)} images")
    return 0


def write(package: Path, studio: str, target: Path) -> int:
    """Copy the images and write the table; the table comes last, so that it stands for a whole folder."""
    rows: list[dict[str, str]] = []
    (target / "images").mkdir(parents=True, exist_ok=True)
    for emoji in json.loads((package / "emoji.json").read_text("utf-8")):
        if emoji["category"] != LEFT_OUT:
            rows += [row for row in variants(emoji) if (package / f"img/{studio}/64/{row['image']}").exists()]
    for row in rows:
        shutil.copyfile(package / f"img/{studio}/64/{row['image']}", target / "images" / row["image"])
        row["image"] = f"images/{row['image']}"
    with (target / "emoji.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["image", "category", "base", "skin_tone"])
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def variants(emoji: dict[str, Any]) -> list[dict[str, str]]:
    """The emoji and its skin tones; `base` is the same for all of them, so that they fall into one split."""
    told = {"category": emoji["category"], "base": emoji["unified"].split("-")[0]}
    tones = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
    found = [{"image": emoji["image"], **told, "skin_tone": "none"}]
    for code, variant in emoji.get("skin_variations", {}).items():
        parts = set(code.split("-"))
        tone = tones.get(next(iter(parts)), "mixed") if len(parts) == 1 else "mixed"
        found.append({"image": variant["image"], **told, "skin_tone": tone})
    return found


if __name__ == "__main__":
    sys.exit(main())
