"""From bytes to what the model eats: 224×224 RGB, with the upright size. Runs inside the loader's processes.

Formats are an allow-list, told by their first bytes and never by the name: JPEG (and MPO), PNG, WebP, GIF, BMP, TIFF,
AVIF, JPEG 2000, PPM and its kin, ICO. All are decoded by libraries inside Pillow's wheel; nothing is handed to another
program (as EPS would be to Ghostscript). Of several pictures in one file the first counts.

The way: upright by EXIF, then 8-bit RGB (alpha over white, 16-bit scaled, colour profiles ignored), then squashed to
224×224 by a bicubic filter, as the CLIP image processor does (worker/resample.py, compiled where that could be).
`exact` decodes JPEG in full; otherwise the decoder halves it while both sides stay above 448, which shifts values by
0.2 of 255 on average. When the pixels of a file change, so must the names in schemas/recipes.py.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Self

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from schemas.errors import Code, ImageFailure, PermanentFailure
from worker.resample import SIDE, Box, squash

if TYPE_CHECKING:  # numpy would double the start and the size of a loader process, which has no use for it
    import numpy as np

    from schemas.settings import Settings

PIXEL_BYTES = SIDE * SIDE * 3
DRAFT_SIDE = 448

FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[BytesIO], ImageFile]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.jpeg_factory),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "TIFF": (re.compile(rb"II[*+]\0(?!.{4}CR)|MM\0[*+]", re.DOTALL), TiffImagePlugin.TiffImageFile),
    "AVIF": (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), AvifImagePlugin.AvifImageFile),
    "JPEG2000": (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), Jpeg2KImagePlugin.Jpeg2KImageFile),
    "BMP": (re.compile(rb"BM.{4}\0{4}", re.DOTALL), BmpImagePlugin.BmpImageFile),
    "PPM": (re.compile(rb"P[1-6fF]\s"), PpmImagePlugin.PpmImageFile),
    "ICO": (re.compile(rb"\0\0\x01\0"), IcoImagePlugin.IcoImageFile),
}

REFUSED = {
    "SVG": re.compile(rb"(\xef\xbb\xbf)?\s*<(.*<)?svg[\s>]", re.DOTALL),
    "HEIC": re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
    "JPEG XL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
    "PDF": re.compile(rb"%PDF-"),
    "EPS": re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"),
    "Photoshop": re.compile(rb"8BPS\0"),
    "OpenEXR": re.compile(rb"\x76\x2f\x31\x01"),
    "camera raw": re.compile(rb"II\*\0.{4}CR|FUJIFILMCCD-RAW|II(RO|RS|U\0)|.{4}ftypcrx ", re.DOTALL),
    "DICOM": re.compile(rb".{128}DICM", re.DOTALL),
    "film": re.compile(rb".{4}ftyp|RIFF.{4}AVI |\x1a\x45\xdf\xa3", re.DOTALL),
    "QOI": re.compile(rb"qoif"),
    "DDS": re.compile(rb"DDS "),
}
"""What people keep beside photographs, by name, so that the verdict says more than "not an image"."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what turns the stored picture upright."""

TURNED = 5
"""From this orientation on, width and height change places."""

ORIENTATION, SUBFILE_TYPE, THUMBNAIL = 0x0112, 0x00FE, 1
BEYOND_PILLOW = re.compile(r"unknown|unsupported|not supported|not available|cannot handle", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """How much one image may cost."""

    max_bytes: int
    max_pixels: int
    max_memory_bytes: int
    decode_timeout_s: float
    fetch_timeout_s: float

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            max_memory_bytes=settings.max_memory_bytes,
            decode_timeout_s=settings.decode_timeout_s,
            fetch_timeout_s=settings.fetch_timeout_s,
        )


@dataclass(frozen=True)
class _Stored:
    """A picture as it lies in the file, and its full size; `box` is where a reduced one ends, in parts of a pixel."""

    image: Image.Image
    size: tuple[int, int]
    box: Box | None = None


@dataclass(frozen=True)
class DecodedImage:
    """Pixels as bytes, row by row, and the upright size."""

    pixels: bytes
    width: int
    height: int
    format: str


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image as the engine takes it, and what is stored about it."""

    pixels: np.ndarray  # [224, 224, 3] uint8, RGB
    width: int
    height: int
    format: str
    size: int
    sha256: str
    version: str
    fetch_s: float = 0.0
    decode_s: float = 0.0


def decode(data: bytes, limits: Limits, *, exact: bool = False) -> DecodedImage:
    """The image upright in RGB, squashed to 224×224, with its upright size.

    Raises PermanentFailure: empty_file, not_an_image, unsupported_format, truncated, too_large.
    """
    kind = identify(data)
    with _verdicts(kind, limits):
        stored, orientation = _load(data, kind, limits, None if exact else DRAFT_SIDE)
        (width, height), image = stored.size, stored.image
        if stored.box is None:  # turned before the resize, whose two passes round in between: the order shows
            pixels = squash(_rgb(_turned(image, orientation), kind))
        else:
            pixels = squash(_rgb(image, kind), stored.box)
            if orientation in UPRIGHT:
                pixels = _turned(Image.frombytes("RGB", (SIDE, SIDE), pixels), orientation).tobytes()
        if orientation >= TURNED:
            width, height = height, width
        return DecodedImage(pixels, width, height, kind)


def upright(data: bytes, limits: Limits, *, side: int | None = None) -> Image.Image:
    """The image upright in RGB, for people to look at, at its full size. Raises PermanentFailure, as `decode`.

    With a `side`, the decoder may halve it while both sides stay at least so long.
    """
    kind = identify(data)
    with _verdicts(kind, limits):
        stored, orientation = _load(data, kind, limits, side)
        return _rgb(_turned(stored.image, orientation), kind)


@contextmanager
def _verdicts(kind: str, limits: Limits) -> Iterator[None]:
    """Whatever a decoder raises, as a PermanentFailure with its code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that we do not read, and of sizes that we check ourselves
        try:
            yield
        except ImageFailure:
            raise
        except (MemoryError, Image.DecompressionBombError):
            raise PermanentFailure(
                Code.TOO_LARGE,
                f"decoding this {kind} needs more memory than the limit of {limits.max_memory_bytes} bytes"
                " (KOSMOGRAPH_MAX_MEMORY_BYTES)",
            ) from None
        except Exception as error:  # on hostile bytes Pillow's plugins raise anything, TypeError and KeyError too
            raise _unreadable(kind, error) from error


def identify(data: bytes) -> str:
    """Pillow's name of the format. Raises PermanentFailure for none, and for those that are not read."""
    if not data:
        raise PermanentFailure(Code.EMPTY_FILE, "the file is empty: 0 bytes")
    head = data[:1024]
    for kind, (magic, _) in FORMATS.items():
        if magic.match(head):
            return kind
    for name, magic in REFUSED.items():
        if magic.match(head):
            raise PermanentFailure(
                Code.UNSUPPORTED_FORMAT, f"{name} is not read; convert it to one of {', '.join(FORMATS)}"
            )
    raise PermanentFailure(Code.NOT_AN_IMAGE, f"not an image: it begins with {head[:16]!r}")


def _load(data: bytes, kind: str, limits: Limits, draft_side: int | None) -> tuple[_Stored, int]:
    """The first picture of the file, with its pixels, and its EXIF orientation."""
    try:
        stored = _pixels(data, kind, limits, draft_side)
    except (SyntaxError, ValueError, struct.error):
        if kind != "PNG":
            raise
        stored = _pixels(_without_metadata(data), kind, limits, draft_side)
    return stored, _orientation(stored.image)


def _pixels(data: bytes, kind: str, limits: Limits, draft_side: int | None) -> _Stored:
    """The first picture of the file, with its pixels."""
    image = FORMATS[kind][1](BytesIO(data))
    _check_size(image.size, limits)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(SUBFILE_TYPE, 0) & THUMBNAIL:
        text = "the first picture of this TIFF is a thumbnail, as in a camera's raw file"
        raise PermanentFailure(Code.UNSUPPORTED_FORMAT, text)
    full = image.size
    draft = image.draft("RGB", (draft_side, draft_side)) if draft_side else None
    reduced = image.size != full
    image.load()
    if draft is not None and reduced:
        return _Stored(image, full, draft[1])
    _check_size(image.size, limits)  # again: an icon's table may lie
    return _Stored(image, image.size)  # TIFF has turned itself upright


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise PermanentFailure(
            Code.TOO_LARGE,
            f"{width}×{height} is more than {limits.max_pixels} pixels (KOSMOGRAPH_MAX_PIXELS)",
        )
    if width < 1 or height < 1:
        raise PermanentFailure(Code.NOT_AN_IMAGE, f"it has no pixels: {width}×{height}")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken metadata, in as many ways as there are; the pixels are fine
        return 1
    return value if value in UPRIGHT else 1


def _rgb(image: Image.Image, kind: str) -> Image.Image:
    """The picture in 8-bit RGB, over white where it is transparent."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PPM"):
        # Pillow's own conversion clips at 255, which makes nearly all of it white
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        return _stretched(image).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # as converting to the same mode copies
    if image.mode == "La":
        image = image.convert("LA")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def _stretched(image: Image.Image) -> Image.Image:
    """Gray from 32-bit integers or floats, which define no white: the smallest value is black, the largest white."""
    low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]
    if not math.isfinite(high - low):
        raise PermanentFailure(Code.UNSUPPORTED_FORMAT, "it has pixels that are infinite or not a number")
    scale = 255 / (high - low) if high > low else 0.0
    return image.convert("F").point(lambda value: value * scale + -low * scale).convert("L")


def _without_metadata(png: bytes) -> bytes:
    """The PNG without its optional chunks: text and profiles that are broken, or unpack to more than Pillow bears."""
    kept, at = [png[:8]], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        whole, at = png[at : at + 12 + length], at + 12 + length
        wanted = whole[4:8] in (b"tRNS", b"eXIf") and zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:])
        if wanted or whole[4:5].isupper():
            kept.append(whole)
    return b"".join(kept)


def _unreadable(kind: str, error: Exception) -> PermanentFailure:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if BEYOND_PILLOW.search(reason):
        return PermanentFailure(Code.UNSUPPORTED_FORMAT, f"this kind of {kind} is not read: {reason}")
    return PermanentFailure(Code.TRUNCATED, f"this {kind} is damaged or cut short: {reason}")
