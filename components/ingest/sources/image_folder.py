"""A folder of class folders: cats/1.png, dogs/deep/down/2.jpg.

What: finds every file below the folder; one of its folders is the label. The id is the path below the folder.
When: images sorted into folders by label, however deep inside.
Not when: labels or attributes stand in a table (source `table`).
Settings: label_level, attributes.
Cost: 0.2 s for 10,000 files; reading them is `ingest`'s own.
Evidence here: tests/components/ingest/test_image_folder.py, tests/contracts/test_sources.py.
Source: the layout of torchvision's ImageFolder; the rules are our own and stand below.

Rules, for every file, in the order of their names whatever the file system says:

- What begins with a dot, and what systems leave behind (SYSTEM), is passed over and not counted.
- A file whose suffix is not an image's is set aside as `not_an_image_file`; one without a suffix is tried.
- An image that does not lie deep enough for `label_level` has no label; `validate` says what becomes of it.
- Links are followed, except where one leads back to a folder that it lies in: set aside as `folder_loop`.
- A folder that cannot be read is set aside as `cannot_open`, a name that is not UTF-8 as `name_not_utf8`.
- Labels are brought to one Unicode form (NFC), as systems write accents differently.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from components import params, plugins, samples
from components.contracts import Found, InputError
from components.job import Job

INPUTS = ("path",)
EXPECTS = "It expects a folder for each label, with images in it."
SYSTEM = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information")


class Params(params.Params):
    """Options."""

    label_level: int = Field(default=1, ge=1, le=20)
    """Which folder is the label: 1 is the first one below `ingest.data`, 2 the one inside it."""
    attributes: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Folders whose names are attributes, by name: {camera: 2} takes the second one."""


def find(params: Params, data: Path, job: Job) -> Iterator[Found]:
    """Yields every file below `data`, sorted by path.

    Raises:
        InputError: `data` is a file.
    """
    if not data.is_dir():
        raise InputError(f"ingest.data: {data.name} is a file. {EXPECTS} For a table use `source: {{name: table}}`.")
    suffixes = plugins.load("tasks", job.run.task).SUFFIXES
    for path, reason, detail in sorted(_walk(data, "", (data.resolve(),))):
        suffix = os.path.splitext(path)[1].lower()
        if not reason and suffix and suffix not in suffixes:
            reason, detail = "not_an_image_file", f"suffix {suffix}"
        named = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if not reason and named != path:
            reason, detail = "name_not_utf8", "rename it"
        folders = named.split("/")[:-1]
        attributes = {k: folders[n - 1] for k, n in params.attributes.items() if n <= len(folders)}
        yield Found(
            id=named,
            label=_label(folders, params.label_level),
            inputs={"path": samples.named(job.root, data / named)},
            attributes=attributes,
            reason=reason,
            detail=detail,
        )


def _label(folders: list[str], level: int) -> str | None:
    return unicodedata.normalize("NFC", folders[level - 1]) if level <= len(folders) else None


def _walk(folder: Path, below: str, above: tuple[Path, ...]) -> Iterator[tuple[str, str, str]]:
    """(path, reason, detail) of what lies in a folder; `above`: the real folders down to it."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        yield below or ".", "cannot_open", error.strerror or type(error).__name__
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
            continue
        path = below + entry.name
        try:
            is_folder = entry.is_dir()
            real = Path(entry.path).resolve() if is_folder else folder
        except (OSError, RuntimeError):  # a link to itself; reading it will say so
            is_folder = False
        if not is_folder:
            yield path, "", ""
        elif entry.is_symlink() and any(one.is_relative_to(real) for one in above):
            yield path, "folder_loop", "a link back to a folder that it lies in"
        else:
            yield from _walk(Path(entry.path), path + "/", (*above, real))
