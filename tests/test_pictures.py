"""Pictures of every kind become upright, opaque RGB; what cannot is one clear line."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from roilab.pictures import read_picture

SIZE = (12, 8)  # width, height


def gradient() -> np.ndarray:
    """[8, 12, 3] uint8, another colour at every pixel, no symmetry."""
    y, x = np.mgrid[:8, :12]
    return np.stack([x * 20, y * 30, 255 - x * 10 - y], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def same(image: Image.Image, expected, tolerance=0):
    assert image.mode == "RGB"
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= tolerance


def fails(source, *words):
    with pytest.raises(ValueError) as caught:
        read_picture(source)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_the_ways_in(tmp_path):
    image = Image.fromarray(gradient())
    data = encoded(image, "PNG")
    path = tmp_path / "bild mit ümlaut ✓.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), file, image, gradient()]
        for source in sources:
            same(read_picture(source), gradient())


def test_the_result_is_a_picture_of_its_own():
    image = Image.fromarray(gradient())
    read_picture(image).paste("red", (0, 0, 12, 8))
    same(image, gradient())
    array = gradient()
    result = read_picture(array)
    array[:] = 0
    same(result, gradient())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation):
    # What a viewer shows is `upright`; the stored pixels are turned so that the tag turns them back.
    upright = Image.fromarray(gradient())
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF value -> PIL transpose that stores it so
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    same(read_picture(encoded(stored, "PNG", exif=exif)), gradient())


def test_broken_exif_is_no_rotation():
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01", quality=95)
    assert read_picture(data).size == SIZE


def test_cmyk():
    cmyk = Image.fromarray(gradient()).convert("CMYK")
    same(read_picture(cmyk), gradient(), tolerance=2)
    red = Image.new("RGB", (32, 32), (220, 30, 40)).convert("CMYK")
    same(read_picture(encoded(red, "JPEG", quality=95)), np.full((32, 32, 3), (220, 30, 40)), tolerance=6)


def test_sixteen_bits():
    grey = np.linspace(0, 65535, 96).astype(np.uint16).reshape(8, 12)
    expected = np.repeat(np.rint(grey / 257)[..., None], 3, axis=-1)
    assert expected.max() == 255 and expected[4, 0, 0] > 100  # clipping instead of scaling would make it all white
    same(read_picture(encoded(Image.fromarray(grey), "PNG")), expected)
    same(read_picture(encoded(Image.fromarray(grey), "TIFF")), expected)
    same(read_picture(grey), expected)
    same(read_picture(grey.astype(">u2")), expected)
    same(read_picture(torch.from_numpy(grey)), expected)
    same(read_picture(Image.fromarray(grey.astype(np.int32))), expected)


def test_floats():
    values = gradient() / 255
    for dtype in (np.float64, np.float32):
        same(read_picture(values.astype(dtype)), gradient())
    same(read_picture(values.astype(np.float16)), gradient(), tolerance=1)
    same(read_picture(values + 1e-4), gradient(), tolerance=1)
    grey = values[..., 0].astype(np.float32)
    same(read_picture(Image.fromarray(grey)), np.repeat(gradient()[..., :1], 3, axis=-1))


def test_grey_and_bilevel_and_palette():
    grey = Image.fromarray(gradient()[..., 0])
    expected = np.repeat(gradient()[..., :1], 3, axis=-1)
    same(read_picture(encoded(grey, "PNG")), expected)
    same(read_picture(gradient()[..., :1]), expected)
    same(read_picture(gradient()[..., 0] > 100), 255 * (expected > 100))
    same(read_picture(encoded(grey.point(lambda v: 255 * (v > 100), "1"), "PNG")), 255 * (expected > 100))
    palette = Image.fromarray(gradient()).quantize(16)
    same(read_picture(encoded(palette, "GIF")), palette.convert("RGB"))


def test_transparency_is_over_white():
    colours = Image.fromarray(gradient())
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(0, (0, 0, 6, 8))
    expected = gradient()
    expected[:, :6] = 255
    rgba = colours.copy()
    rgba.putalpha(alpha)
    same(read_picture(encoded(rgba, "PNG")), expected)
    same(read_picture(np.asarray(rgba)), expected)
    same(read_picture(torch.from_numpy(np.array(rgba)).permute(2, 0, 1)), expected)
    same(read_picture(rgba.convert("RGBa")), expected, tolerance=1)
    half = Image.new("RGBA", SIZE, (255, 0, 0, 128))
    same(read_picture(half), np.full((8, 12, 3), (255, 127, 127)), tolerance=1)
    grey = Image.merge("LA", [colours.convert("L"), alpha])
    assert read_picture(grey).getpixel((0, 0)) == (255, 255, 255)
    # one colour, or one palette entry, declared transparent
    same(
        read_picture(encoded(Image.new("RGB", SIZE, (9, 8, 7)), "PNG", transparency=(9, 8, 7))),
        np.full((8, 12, 3), 255),
    )
    spot = Image.new("P", SIZE, 1)
    spot.putpalette([0, 0, 0, 200, 0, 0])
    same(read_picture(encoded(spot, "PNG", transparency=1)), np.full((8, 12, 3), 255))


def test_tensors():
    channels_last = torch.from_numpy(gradient())
    channels_first = channels_last.permute(2, 0, 1)
    floats = (channels_first / 255).requires_grad_()
    for tensor in (channels_last, channels_first, floats, floats.double(), channels_first.long()):
        same(read_picture(tensor), gradient())
    same(read_picture(floats.bfloat16()), gradient(), tolerance=1)
    same(read_picture(channels_last[..., 0]), np.repeat(gradient()[..., :1], 3, axis=-1))
    both = torch.zeros(3, 5, 3, dtype=torch.uint8)  # [C, H, W] and [H, W, C] fit: channels first
    both[0] = 255
    same(read_picture(both), np.full((5, 3, 3), (255, 0, 0)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_files(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.img"
    for part in (0.9, 0.5, 0.1):
        path.write_bytes(data[: int(len(data) * part)])
        fails(path, "cut.img")
    for length in range(1, 40):
        fails(data[:length])


def test_random_damage_is_never_another_exception():
    rng = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "GIF", "TIFF"):
        original = encoded(Image.fromarray(gradient()), kind)
        for _ in range(60):
            data = bytearray(original)
            for place in rng.integers(0, len(data), 4):
                data[place] = rng.integers(0, 256)
            try:
                assert read_picture(bytes(data)).mode == "RGB"
            except ValueError as error:
                assert "\n" not in str(error)


def test_decompression_bombs(monkeypatch):
    def header(width, height):
        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

    fails(header(60000, 60000), "too large", "3600000000")
    fails(header(10000, 10000), "too large", "10000 x 10000", str(Image.MAX_IMAGE_PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8 * 12 - 1)
    fails(encoded(Image.fromarray(gradient()), "PNG"), "12 x 8", "95")


def test_files_that_are_no_pictures(tmp_path):
    missing = tmp_path / "nowhere.png"
    fails(missing, "nowhere.png", str(tmp_path))
    fails(tmp_path, "folder")
    empty = tmp_path / "empty.png"
    empty.touch()
    fails(empty, "empty.png", "0 bytes")
    text = tmp_path / "text.png"
    text.write_text("hello, world")
    fails(text, "text.png", "hello")
    fails(b"", "0 bytes")
    fails("", "path")
    fails("a\0b", "path")
    fails("x" * 5000)
    fails(io.StringIO("text"), "str", "bytes")


@pytest.mark.parametrize(
    "url", ["https://example.org/cat.jpg", "HTTP://x/y.png", "data:image/png;base64,AAAA", "file:///a.png"]
)
def test_urls_are_not_fetched(url):
    fails(url, url, "fetches nothing")


def test_arrays_that_are_no_pictures():
    fails(np.zeros((3, 20, 20), np.uint8), "3 x 20 x 20", "H x W x C")
    fails(np.zeros((2, 20, 20, 3), np.uint8), "2 x 20 x 20 x 3", "batch")
    fails(np.zeros((20, 20, 2), np.uint8), "20 x 20 x 2")
    fails(np.zeros(5, np.uint8), "5", "H x W")
    fails(np.zeros((0, 5, 3), np.uint8), "no pixels", "0 x 5 x 3")
    fails(Image.new("RGB", (0, 5)), "no pixels", "0 x 5")
    fails(torch.zeros(2, 3, 8, 8), "2 x 3 x 8 x 8", "the tensor")
    fails(np.full((4, 4), 2.5), "2.5", "0..1")
    fails(np.full((4, 4), -1), "-1", "0..255")
    fails(np.full((4, 4), 256), "256", "0..255")
    fails(np.full((4, 4), np.nan), "NaN")
    fails(np.zeros((4, 4), complex), "complex")
    fails(np.array([["a"]]), "expected")


def test_other_types_are_named():
    with pytest.raises(TypeError, match=re.escape("builtins.list")):
        read_picture([1, 2, 3])
