"""Reading pictures of any kind into 8-bit RGB.

`read_picture` is the single way in for what a user calls a picture: a file, bytes, a PIL picture, an array or a tensor. Whatever it
was, the result is upright (EXIF rotation applied), opaque (transparency over white) and 8 bits deep. What cannot be read is a
`ValueError` of one line that names the source and what is wrong with it.
"""

import io
import math
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_URL = re.compile(r"^([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)
_WIDE_GREYS = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def read_picture(source) -> Image.Image:
    """Any picture as an upright, opaque PIL picture in mode RGB; boxes refer to the pixels of this result.

    Args:
        source: one of
            - a path (str or os.PathLike) of a file that Pillow reads; of several frames the first;
            - the bytes of such a file (bytes, bytearray, memoryview), or a binary file object, read from where it stands;
            - a PIL picture of any mode (never changed; its EXIF rotation, if it still carries one, is applied);
            - a numpy array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]: uint8, uint16 (0..65535), bool, float (0..1), or wider
              integers whose values are 0..255;
            - a torch tensor of the same dtypes, [C, H, W] or [H, W, C] with C of 1, 3 or 4, or [H, W]. Where both readings fit,
              as for [3, H, 3], channels come first.

    Returns:
        A new picture, mode RGB, at least 1 x 1.

    Raises:
        ValueError: URLs (nothing is fetched), a missing or empty file, not a picture, a truncated one, no pixels, more pixels than
            Pillow's `Image.MAX_IMAGE_PIXELS`, an unfit shape, dtype or range of values.
        TypeError: none of the kinds above.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the PIL picture")
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source, "the array"), "the array")
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported torch
    if torch is not None and isinstance(source, torch.Tensor):
        return _to_rgb(_from_tensor(source), "the tensor")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "the picture's bytes")
    if isinstance(source, (str, os.PathLike)):
        return _decode(*_read_file(source))
    if hasattr(source, "read"):
        name = f"the file object {getattr(source, 'name', '') or ''}".strip()
        data = source.read()
        if not isinstance(data, (bytes, bytearray)):
            raise ValueError(f"{name} gives {type(data).__name__}, expected bytes: open it in binary mode ('rb')")
        return _decode(bytes(data), name)
    raise TypeError(
        "a picture is a path, bytes, a binary file object, a PIL picture, a numpy array or a torch tensor, "
        f"not {type(source).__module__}.{type(source).__qualname__}"
    )


def _read_file(source) -> tuple[bytes, str]:
    text = os.fsdecode(source)
    if _URL.match(text):
        raise ValueError(
            f"{_short(text)} is a URL, and roilab fetches nothing: download it, and give its path or bytes"
        )
    path, name = Path(text), _short(text)
    if "\0" in text or not text:
        raise ValueError(f"{name} is not a path: expected the name of a picture file")
    try:
        if not path.exists():
            raise ValueError(f"no file {name} (looked in {path.absolute().parent})")
        if not path.is_file():
            raise ValueError(f"{name} is not a picture file but a {'folder' if path.is_dir() else 'device or pipe'}")
        return path.read_bytes(), name
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise ValueError(f"{name} cannot be read: {error.strerror or error}") from error


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "…")


def _decode(data: bytes, name: str) -> Image.Image:
    if not data:
        raise ValueError(f"{name} has 0 bytes, expected a picture")
    with warnings.catch_warnings():
        # Damaged tags, and sizes between Pillow's limit and twice the limit, only warn in Pillow. Damage that matters fails in load(),
        # and the size is compared in _open, before any pixel is decoded.
        warnings.simplefilter("ignore")
        return _to_rgb(_open(data, name), name)


def _open(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture that Pillow can read: its first bytes are {data[:8]!r}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large: {_line(error)}") from error
    except Exception as error:  # decoders of damaged files raise whatever they meet
        raise ValueError(f"{name} cannot be read as a picture: {_line(error)}") from error
    _check_size(image.size, name)
    return image


def _check_size(shape, name: str):
    """Raises ValueError for more values than Pillow's limit allows pixels, times four channels if there are channels."""
    limit, count = Image.MAX_IMAGE_PIXELS, math.prod(shape)
    if limit is not None and count > limit * (1 if len(shape) == 2 else 4):
        raise ValueError(
            f"{name} is too large: {' x '.join(map(str, shape))} = {count} {'pixels' if len(shape) == 2 else 'values'}, "
            f"Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS) is {limit} pixels"
        )


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Upright, opaque, 8 bits, a picture of its own."""
    if min(image.size) < 1:
        raise ValueError(f"{name} has no pixels: its size is {image.width} x {image.height}, expected at least 1 x 1")
    try:
        image.load()
    except Exception as error:
        raise ValueError(f"{name} is damaged or truncated: {_line(error)}") from error
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # noqa: S110 - unreadable EXIF data says nothing about the rotation; the pixels are fine
        pass
    try:
        if image.mode in _WIDE_GREYS:
            image = _from_array(_wide_grey(image), name)
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        # convert() to the same mode gives a copy
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(error if str(error).startswith(name) else f"{name} ({image.mode}): {_line(error)}") from error


def _wide_grey(image: Image.Image) -> np.ndarray:
    """The values of a 16-bit, 32-bit or float grey picture, for `_from_array`.

    Mode I is how Pillow holds 16-bit PNGs (older versions) and 32-bit TIFFs: 0..255 or 0..65535.
    """
    values = np.asarray(image)
    if image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535:
        return values.astype(np.uint16)
    return values


def _from_array(values: np.ndarray, name: str) -> Image.Image:
    """[H, W] or [H, W, C] -> a PIL picture of 8 bits."""
    shape = " x ".join(map(str, values.shape)) or "a single number"
    if values.ndim == 3 and values.shape[-1] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        raise ValueError(f"{name} is {shape}, channels first; expected H x W x C: transpose(1, 2, 0)")
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            f"{name} is {shape}, expected H x W or H x W x C with 1, 3 or 4 channels (one picture, no batch)"
        )
    if 0 in values.shape:
        raise ValueError(f"{name} has no pixels: it is {shape}, expected at least 1 x 1")
    _check_size(values.shape, name)
    values = _to_uint8(values, name)
    return Image.fromarray(values[..., 0] if values.shape[2:] == (1,) else np.ascontiguousarray(values))


def _to_uint8(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{name} holds {values.dtype}, expected uint8, uint16, bool, or float in 0..1")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values, expected 0..1")
    low, high = values.min().item(), values.max().item()
    if values.dtype.kind == "f":
        if low < -1e-3 or high > 1 + 1e-3:  # resizing and rounding may leave the range by a hair
            raise ValueError(f"{name} holds {values.dtype} from {low:.4g} to {high:.4g}, expected 0..1")
        return (np.clip(values.astype(np.float32), 0, 1) * 255 + 0.5).astype(np.uint8)
    if values.dtype.newbyteorder("=") == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257, rounded
    if low < 0 or high > 255:
        raise ValueError(
            f"{name} holds {values.dtype} from {low} to {high}, expected 0..255 (or uint16, or float in 0..1)"
        )
    return values.astype(np.uint8)


def _from_tensor(tensor) -> Image.Image:
    """[C, H, W], [H, W, C] or [H, W] -> a PIL picture; the one place where channels may come first."""
    if tensor.is_meta:
        raise ValueError(f"the tensor {list(tensor.shape)} is on the device meta, which holds no values")
    _check_size(tensor.shape, "the tensor")
    tensor = tensor.detach().cpu()
    try:
        if tensor.is_floating_point():
            tensor = tensor.float()  # numpy has no bfloat16
        if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4):
            tensor = tensor.permute(1, 2, 0)
        values = tensor.numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized and such
        raise ValueError(f"the tensor ({tensor.dtype}, {tensor.layout}) has no plain values: {_line(error)}") from error
    return _from_array(values, "the tensor")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
