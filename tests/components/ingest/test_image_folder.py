"""Which files an image_folder finds, under which labels, in which order."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pytest

from components import params
from components.contracts import Found, InputError
from components.ingest.sources import image_folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return factories.image_folder(tmp_path / "data", per_label=2)


@pytest.fixture
def find(make_job: Callable[..., Any], data: Path) -> Callable[..., list[Found]]:
    job = make_job("ingest")
    return lambda **options: list(image_folder.find(image_folder.Params(**options), data, job))


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_first_folder_is_the_label_and_the_path_is_the_id(find: Callable[..., list[Found]], data: Path) -> None:
    put(data / "circle/deep/down/x.PNG")
    found = {f.id: f for f in find()}
    assert found["circle/000.png"] == Found("circle/000.png", "circle", {"path": "data/circle/000.png"})
    assert found["circle/deep/down/x.PNG"].label == "circle"
    assert {f.label for f in found.values()} == {"circle", "square", "triangle"}


def test_order_is_that_of_names_whatever_the_file_system_says(
    find: Callable[..., list[Found]], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = find()
    real = os.scandir

    def scan(path: Any) -> Any:
        return reversed(list(real(path))) if str(path).startswith(str(data)) else real(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert find() == plain
    assert [f.id for f in plain] == sorted(f.id for f in plain)


def test_hidden_and_system_files_are_passed_over(find: Callable[..., list[Found]], data: Path) -> None:
    before = find()
    for name in ("Thumbs.db", ".DS_Store", "._000.png", "desktop.ini", "circle/.git/a.png", ".hidden/b.png"):
        put(data / name)
    put(data / "__MACOSX/circle/._000.png")
    put(data / "circle/@eaDir/000.png")
    assert find() == before


def test_other_files_are_set_aside_and_not_lost(find: Callable[..., list[Found]], data: Path) -> None:
    put(data / "notes.txt")
    put(data / "circle/labels.csv")
    put(data / "circle/raw.heic")
    aside = {f.id: (f.reason, f.detail) for f in find() if f.reason}
    assert aside == {
        "notes.txt": ("not_an_image_file", "suffix .txt"),
        "circle/labels.csv": ("not_an_image_file", "suffix .csv"),
        "circle/raw.heic": ("not_an_image_file", "suffix .heic"),
    }


def test_a_file_without_a_suffix_is_tried(find: Callable[..., list[Found]], data: Path) -> None:
    put(data / "circle/IMG0001")
    assert {f.id: f for f in find()}["circle/IMG0001"].reason == ""


def test_images_at_the_root_have_no_label(find: Callable[..., list[Found]], data: Path) -> None:
    put(data / "loose.png")
    assert {f.id: f for f in find()}["loose.png"].label is None


def test_another_level_can_be_the_label_and_levels_can_be_attributes(make_job: Callable[..., Any], data: Path) -> None:
    put(data / "photo/cat/kitchen/1.png")
    put(data / "photo/2.png")
    options = image_folder.Params(label_level=2, attributes={"studio": 1, "room": 3})
    found = {f.id: f for f in image_folder.find(options, data, make_job("ingest"))}
    assert found["photo/cat/kitchen/1.png"].label == "cat"
    assert found["photo/cat/kitchen/1.png"].attributes == {"studio": "photo", "room": "kitchen"}
    assert found["photo/2.png"].label is None
    assert found["photo/2.png"].attributes == {"studio": "photo"}


def test_links_are_followed_but_loops_are_not(find: Callable[..., list[Found]], data: Path, tmp_path: Path) -> None:
    factories.image_folder(tmp_path / "elsewhere", per_label=1, labels=("cross",))
    (data / "cross").symlink_to(tmp_path / "elsewhere/cross")
    (data / "circle/again").symlink_to(data)
    (data / "circle/up").symlink_to("/")
    (data / "circle/itself").symlink_to(data / "circle/itself")
    (data / "square/other").symlink_to(data / "triangle")
    (data / "triangle/other").symlink_to(data / "square")
    (data / "square/gone.png").symlink_to(data / "nowhere.png")
    found = {f.id: f for f in find()}
    assert found["cross/000.png"].label == "cross"
    loops = {i for i, f in found.items() if f.reason == "folder_loop"}
    assert loops == {"circle/again", "circle/up", "square/other/other", "triangle/other/other"}
    assert found["square/other/000.png"].label == "square"
    assert found["square/gone.png"].reason == "", "reading it tells that it is not there"
    assert "circle/itself" in found


def test_a_folder_that_cannot_be_read_is_told(
    find: Callable[..., list[Found]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scan(path: Any) -> Any:
        if str(path).endswith("square"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    found = {f.id: f for f in find()}
    assert (found["square/"].reason, found["square/"].detail) == ("cannot_open", "Permission denied")
    assert "circle/000.png" in found


def test_a_name_that_is_not_utf8_is_set_aside(find: Callable[..., list[Found]], data: Path) -> None:
    try:
        put(Path(os.fsdecode(os.fsencode(data / "circle") + b"/caf\xe9.png")))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    odd = next(f for f in find() if f.reason)
    assert (odd.id, odd.reason) == ("circle/caf\\xe9.png", "name_not_utf8")


def test_one_label_written_in_two_unicode_forms_is_one_label(find: Callable[..., list[Found]], data: Path) -> None:
    for form in ("NFC", "NFD"):
        put(data / unicodedata.normalize(form, "café") / f"{form}.png")
    assert len({f.label for f in find() if f.label and f.label.startswith("caf")}) == 1


def test_paths_outside_the_project_are_absolute(make_job: Callable[..., Any], tmp_path_factory: Any) -> None:
    outside = factories.image_folder(tmp_path_factory.mktemp("outside") / "data", per_label=1)
    one = next(iter(image_folder.find(image_folder.Params(), outside, make_job("ingest"))))
    assert one.inputs == {"path": (outside / "circle/000.png").as_posix()}
    assert one.id == "circle/000.png"


def test_a_file_instead_of_a_folder_is_a_mistake(make_job: Callable[..., Any], data: Path) -> None:
    table = put(data / "table.csv")
    with pytest.raises(InputError, match=r"table\.csv is a file.*name: table"):
        list(image_folder.find(image_folder.Params(), table, make_job("ingest")))


def test_options_are_strict() -> None:
    for wrong in ({"label_level": 0}, {"level": 1}, {"attributes": {"a": "b"}}, {"attributes": {"a": 0}}):
        with pytest.raises(ValueError, match="validation error"):
            image_folder.Params.model_validate(wrong)
    assert issubclass(image_folder.Params, params.Params)
