"""Files as they turn up in real collections, made in code: odd ones to be used, and broken ones."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

SIDE = 24
JPEG = 5
LEFT, RIGHT = (200, 30, 60), (20, 120, 220)


@dataclass(frozen=True)
class Odd:
    """A file that is used: the upright RGB pixels that must come of it, and how far off they may be."""

    content: bytes
    expected: np.ndarray
    """uint8 [height, width, 3]."""
    tolerance: int = 0
    note: str = ""


def halves(width: int = SIDE, height: int = SIDE, left: object = LEFT, right: object = RIGHT) -> np.ndarray:
    """One value on the left half, another on the right one: uint8 [height, width, channels]."""
    pixels = np.empty((height, width, len(np.atleast_1d(left))), dtype=np.uint8)  # type: ignore[arg-type]
    pixels[:, : width // 2] = left
    pixels[:, width // 2 :] = right
    return pixels


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    store = io.BytesIO()
    image.save(store, kind, **options)
    return store.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def circular_tiff() -> bytes:
    """A TIFF whose list of pages leads back to its first one."""
    content = bytearray(encoded(Image.fromarray(halves()), "TIFF"))
    first = struct.unpack("<I", content[4:8])[0]
    entries = struct.unpack("<H", content[first : first + 2])[0]
    following = first + 2 + 12 * entries
    content[following : following + 4] = struct.pack("<I", first)
    return bytes(content)


def odd() -> dict[str, Odd]:
    """File name -> a file that must be used."""
    colour = halves()
    picture = Image.fromarray(colour)
    grey = halves(left=40, right=210)
    as_rgb = np.repeat(grey, 3, axis=2)
    level = Image.fromarray(grey[..., 0])
    white = np.full_like(colour, 255)
    deep = halves(left=1, right=1)[..., 0].astype(np.uint16)
    deep[:, : SIDE // 2], deep[:, SIDE // 2 :] = 10_280, 65_535  # 40 and 255
    deep_rgb = np.repeat(halves(left=40, right=255), 3, axis=2)
    see_through = Image.fromarray(np.dstack([colour, halves(left=255, right=0)]), "RGBA")
    over_white = np.where(np.arange(SIDE)[None, :, None] < SIDE // 2, colour, white)
    half = Image.fromarray(np.dstack([colour, np.full(colour.shape[:2], 128, np.uint8)]), "RGBA")
    mixed = np.rint(colour * (128 / 255) + 255 * (127 / 255)).astype(np.uint8)
    palette = picture.quantize(2)
    clear = palette.getpixel((SIDE - 1, 0))
    la = Image.merge("LA", (level, Image.fromarray(halves(left=255, right=0)[..., 0])))
    la_rgb = np.where(np.arange(SIDE)[None, :, None] < SIDE // 2, as_rgb, white)
    bits = Image.fromarray(halves(left=0, right=255)[..., 0]).convert("1")
    bits_rgb = np.repeat(halves(left=0, right=255), 3, axis=2)
    cmyk = Image.new("CMYK", (SIDE, SIDE), (0, 0, 0, 255))
    black = np.zeros_like(colour)
    tall = halves(width=SIDE, height=10)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise by 90 degrees
    stored = Image.fromarray(np.rot90(tall))  # turning it clockwise gives `tall`
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    second = Image.fromarray(255 - colour)
    jpeg = encoded(picture, "JPEG", quality=95, subsampling=0)
    frames = "first of 3 frames"
    return {
        "plain.png": Odd(encoded(picture, "PNG"), colour),
        "plain.jpg": Odd(jpeg, colour, JPEG),
        "plain.bmp": Odd(encoded(picture, "BMP"), colour),
        "plain.ppm": Odd(encoded(picture, "PPM"), colour),
        "plain.tiff": Odd(encoded(picture, "TIFF"), colour),
        "lossless.webp": Odd(encoded(picture, "WEBP", lossless=True), colour),
        "grey.png": Odd(encoded(level, "PNG"), as_rgb),
        "grey.pgm": Odd(encoded(level, "PPM"), as_rgb),
        "grey16.png": Odd(encoded(Image.fromarray(deep), "PNG"), deep_rgb),
        "grey16.tiff": Odd(encoded(Image.fromarray(deep), "TIFF"), deep_rgb),
        "grey16.pgm": Odd(encoded(Image.fromarray(deep), "PPM"), deep_rgb),
        "bits.png": Odd(encoded(bits, "PNG"), bits_rgb),
        "bits_clear.png": Odd(encoded(bits, "PNG", transparency=0), np.full_like(colour, 255)),
        "palette.png": Odd(encoded(palette, "PNG"), colour),
        "palette_clear.png": Odd(encoded(palette, "PNG", transparency=clear), over_white),
        "palette_bytes.png": Odd(encoded(palette, "PNG", transparency=_alphas(clear)), over_white),
        "clear_colour.png": Odd(encoded(picture, "PNG", transparency=RIGHT), over_white),
        "la.png": Odd(encoded(la, "PNG"), la_rgb),
        "rgba.png": Odd(encoded(see_through, "PNG"), over_white),
        "half_clear.png": Odd(encoded(half, "PNG"), mixed, 1),
        "rgba.webp": Odd(encoded(see_through, "WEBP", lossless=True), over_white),
        "cmyk.jpg": Odd(encoded(cmyk, "JPEG", quality=95), black, 2),
        "turned.jpg": Odd(encoded(stored, "JPEG", quality=95, subsampling=0, exif=turned), tall, JPEG),
        "turned.png": Odd(encoded(stored, "PNG", exif=turned), tall),
        "turned.webp": Odd(encoded(stored, "WEBP", lossless=True, exif=turned), tall),
        "turned.tiff": Odd(encoded(stored, "TIFF", exif=turned), tall),
        "broken_exif.png": Odd(
            encoded(picture, "PNG", exif=turned.tobytes().replace(b"MM\0*", b"XXXX")),
            colour,
            note="unreadable EXIF, not turned",
        ),
        "animated.gif": Odd(
            encoded(palette, "GIF", save_all=True, append_images=[second.quantize(2), level.quantize(2)]),
            colour,
            note=frames,
        ),
        "animated.webp": Odd(
            encoded(picture, "WEBP", lossless=True, save_all=True, append_images=[second, level]),
            colour,
            note=frames,
        ),
        "pages.tiff": Odd(
            encoded(picture, "TIFF", save_all=True, append_images=[second, picture]), colour, note=frames
        ),
        "cut_in_second_frame.gif": Odd(
            encoded(palette, "GIF", save_all=True, append_images=[second.quantize(2)])[:-12],
            colour,
            note="first of 2 frames",
        ),
        "stereo.jpg": Odd(
            encoded(picture, "MPO", quality=95, subsampling=0, save_all=True, append_images=[second]),
            colour,
            JPEG,
            "first of 2 frames",
        ),
        "circular.tiff": Odd(circular_tiff(), colour),
        "one.png": Odd(encoded(Image.new("RGB", (1, 1), LEFT), "PNG"), np.full((1, 1, 3), LEFT, np.uint8)),
        "wide.png": Odd(encoded(Image.fromarray(halves(5000, 1)), "PNG"), halves(5000, 1)),
        "high.png": Odd(encoded(Image.fromarray(halves(2, 5000)), "PNG"), halves(2, 5000)),
        "a_png_in_fact.jpg": Odd(encoded(picture, "PNG"), colour),
        "no_suffix": Odd(encoded(picture, "PNG"), colour),
        "UPPER.PNG": Odd(encoded(picture, "PNG"), colour),
        "garbage_behind.jpg": Odd(jpeg + b"\0garbage" * 50, colour, JPEG),
        "garbage_behind.png": Odd(encoded(picture, "PNG") + b"garbage" * 50, colour),
        "profile.png": Odd(encoded(picture, "PNG", icc_profile=profile), colour),
        "profile.jpg": Odd(encoded(picture, "JPEG", quality=95, subsampling=0, icc_profile=profile), colour, JPEG),
    }


def _alphas(clear: object) -> bytes:
    assert isinstance(clear, int)
    return bytes(0 if index == clear else 255 for index in range(2))


def broken() -> dict[str, tuple[bytes, str]]:
    """File name -> (content, the reason for which it must be set aside)."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    jpeg, png = encoded(picture, "JPEG", quality=90), encoded(picture, "PNG")
    gif, webp = encoded(picture.quantize(16), "GIF"), encoded(picture, "WEBP")
    tiff, bmp, ppm = (encoded(picture, kind) for kind in ("TIFF", "BMP", "PPM"))
    data = png.index(b"IDAT") + 4
    length = struct.unpack(">I", png[data - 8 : data - 4])[0]
    cut = {
        f"cut_{name}_{share}.{name}": (content[: len(content) * share // 100], "truncated_or_corrupt")
        for name, content in (
            ("jpg", jpeg),
            ("png", png),
            ("gif", gif),
            ("webp", webp),
            ("tiff", tiff),
            ("bmp", bmp),
        )
        for share in (10, 50, 90, 99)
    }
    return cut | {
        "cut_by_one.jpg": (jpeg[:-1], "truncated_or_corrupt"),
        "only_a_beginning.jpg": (jpeg[:20], "truncated_or_corrupt"),
        "cut.ppm": (ppm[:-1], "truncated_or_corrupt"),
        "bad_crc.png": (_flipped(png, data + length), "truncated_or_corrupt"),
        "bad_pixels.png": (_flipped(png, data + length // 2), "truncated_or_corrupt"),
        "bad_header.png": (_flipped(png, 20), "truncated_or_corrupt"),
        "empty.png": (b"", "empty"),
        "text.png": (b"this is not an image\n", "not_an_image"),
        "page.jpg": (b"<!DOCTYPE html><html>404 Not Found</html>", "not_an_image"),
        "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not_an_image"),
        "zeros.jpg": (b"\0" * 4096, "not_an_image"),
        "bomb.png": (bomb(40_000, 40_000), "too_large"),
        "small_bomb.png": (bomb(10_500, 10_000), "too_large"),
        "hollow.png": (bomb(3_000, 3_000), "truncated_or_corrupt"),
        "float.tiff": (
            encoded(Image.fromarray(noise[..., 0].astype(np.float32) / 255), "TIFF"),
            "unsupported_mode",
        ),
        "int32.tiff": (
            encoded(Image.fromarray(noise[..., 0].astype(np.int32) * 1000), "TIFF"),
            "unsupported_mode",
        ),
    }


def _flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 0xFF
    return bytes(changed)
