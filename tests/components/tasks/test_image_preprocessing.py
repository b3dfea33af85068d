"""Every odd file comes out right, every broken one gets its reason, and nothing is said aside."""

from __future__ import annotations

import io
import json
import logging
import time
import warnings

import numpy as np
import odd_images
import pytest
from PIL import Image

from components.preprocessing import image_classification as pixels
from components.preprocessing.image_classification import FITS, FORMATS, INTERPOLATIONS, Preprocessing, Unreadable
from components.tasks import image_classification

ODD, BROKEN = odd_images.odd(), odd_images.broken()


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_has_the_right_pixels(name: str) -> None:
    odd = ODD[name]
    image, note = pixels.decode(odd.content)
    rgb = np.asarray(pixels.to_rgb(image))
    assert rgb.shape == odd.expected.shape
    assert np.abs(rgb.astype(int) - odd.expected).max() <= odd.tolerance
    assert note == odd.note


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_has_its_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(Unreadable) as told:
        pixels.to_rgb(pixels.decode(content)[0])
    assert told.value.reason == reason
    assert "object at 0x" not in told.value.detail, "memory addresses differ from run to run"


def test_any_damage_gives_an_image_or_a_reason_and_no_word_aside(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    contents = [odd.content for odd in ODD.values()] + [content for content, _ in BROKEN.values() if content]
    reasons = set()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for turn in range(1500):
            damaged = bytearray(contents[turn % len(contents)])
            for place in rng.integers(0, min(len(damaged), 400), 4):
                damaged[place] = rng.integers(0, 256)
            started = time.monotonic()
            try:
                pixels.to_rgb(pixels.decode(bytes(damaged))[0])
            except Unreadable as problem:
                reasons.add(problem.reason)
            assert time.monotonic() - started < 20
    assert reasons <= {"not_an_image", "truncated_or_corrupt", "too_large", "unsupported_mode"}
    assert not warned
    assert capfd.readouterr().err == ""
    del caplog


def test_pillow_has_a_handler_so_that_its_log_does_not_reach_users() -> None:
    assert any(isinstance(h, logging.NullHandler) for h in logging.getLogger("PIL").handlers)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    content, _ = BROKEN["bomb.png"]
    started = time.monotonic()
    with pytest.raises(Unreadable, match="too_large"):
        pixels.decode(content)
    assert time.monotonic() - started < 0.5
    assert len(content) < 1000


def test_sixteen_bits_are_scaled_to_the_nearest_of_eight() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image, _ = pixels.decode(odd_images.encoded(Image.fromarray(values), "PNG"))
    grey = np.asarray(pixels.to_rgb(image))[..., 0]
    np.testing.assert_array_equal(grey, np.rint(values * (255 / 65535)).astype(np.uint8))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 90)])
def test_transparency_shows_the_background(background: tuple[int, int, int]) -> None:
    clear = Image.new("RGBA", (3, 3), (255, 0, 255, 0))
    rgb = np.asarray(pixels.to_rgb(clear, background))
    assert (rgb == background).all()


def test_every_suffix_that_is_taken_for_an_image_is_of_a_format_that_is_read() -> None:
    Image.init()
    formats = Image.registered_extensions()
    assert {formats[s] for s in image_classification.SUFFIXES} <= set(FORMATS)


def test_nothing_that_runs_a_program_is_among_the_formats() -> None:
    assert not {"EPS", "WMF", "PCD", "FITS", "GRIB", "HDF5", "BUFR"} & set(FORMATS)


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (37, 64), (64, 64)])
def test_every_fit_gives_the_size_and_keeps_the_colour(how: str, size: tuple[int, int]) -> None:
    colour = (180, 40, 20)
    wanted = Preprocessing(48, 32, (0.5,) * 3, (0.5,) * 3, fit=how, background=colour)
    assert (pixels.fit(Image.new("RGB", size, colour), wanted) == colour).all()
    assert pixels.fit(Image.new("RGB", size, colour), wanted).shape == (48, 32, 3)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_padding_never_loses_the_image(size: tuple[int, int]) -> None:
    wanted = Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3, fit="pad")
    assert (pixels.fit(Image.new("RGB", size), wanted) == 0).any()


def test_crop_takes_the_middle_in_the_networks_proportions() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 101, 3), dtype=np.uint8))
    square = Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3, fit="crop")
    squashed = Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3)
    middle = image.crop((25, 0, 75, 50))
    np.testing.assert_array_equal(pixels.fit(image, square), pixels.fit(middle, squashed))
    wide = Preprocessing(20, 40, (0.5,) * 3, (0.5,) * 3, fit="crop")
    tall = image.resize((50, 101))
    expected = pixels.fit(tall.crop((0, 38, 50, 63)), Preprocessing(20, 40, (0.5,) * 3, (0.5,) * 3))
    np.testing.assert_array_equal(pixels.fit(tall, wide), expected)


@pytest.mark.parametrize(
    ("inside", "shape", "largest"),
    [
        ((64, 64), (3, 3), (64, 64)),
        ((64, 64), (100, 50), (64, 32)),
        ((64, 64), (50, 101), (32, 64)),
        ((64, 32), (1, 1), (32, 32)),
        ((64, 64), (1, 5000), (1, 64)),
        ((7, 5), (2, 3), (3, 5)),
    ],
)
def test_the_largest_part_keeps_the_proportions_to_the_nearest_pixel(
    inside: tuple[int, int], shape: tuple[int, int], largest: tuple[int, int]
) -> None:
    assert pixels._largest(inside, shape) == largest


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_load_is_decode_to_rgb_and_fit(interpolation: str) -> None:
    wanted = Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3, interpolation=interpolation)
    content = ODD["turned.png"].content
    image = pixels.to_rgb(pixels.decode(content)[0])
    np.testing.assert_array_equal(pixels.load(content, wanted), pixels.fit(image, wanted))


def test_normalise_is_the_formula() -> None:
    how = Preprocessing(4, 5, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    rows = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    expected = ((rows / 255 - how.mean) / how.std).transpose(0, 3, 1, 2)
    values = pixels.normalise(rows, how)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    np.testing.assert_allclose(values, expected, atol=2e-6)


def test_preprocessing_comes_back_from_json() -> None:
    how = Preprocessing(8, 9, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "nearest", "pad", (1, 2, 3))
    raw = json.loads(json.dumps(how.__dict__))
    assert Preprocessing.read(raw) == how


def test_an_unknown_fit_names_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="squash"):
        pixels.fit(
            Image.open(io.BytesIO(ODD["plain.png"].content)),
            Preprocessing(8, 8, (0,) * 3, (1,) * 3, fit="bend"),
        )
