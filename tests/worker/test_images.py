"""Decoding: against plain Pillow, against the transformers processor, and against bytes that mean harm."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

import worker
from schemas.errors import Code, ImageFailure, PermanentFailure
from worker.images import DecodedImage, Limits, decode
from worker.resample import SIDE

PHOTOGRAPHS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "hubble_deep_field.jpg"]
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}, "PPM": {}, "JPEG2000": {}}
Encode = Callable[..., bytes]
Photograph = Callable[..., Image.Image]


def pixels(image: DecodedImage) -> np.ndarray:
    return np.frombuffer(image.pixels, np.uint8).reshape(SIDE, SIDE, 3)


def squashed(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def code_of(data: bytes, limits: Limits) -> Code:
    with pytest.raises(PermanentFailure) as failure:
        decode(data, limits)
    return failure.value.code


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = extra + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def photographs() -> dict[str, bytes]:
    """Real photographs, from scikit-image's wheel."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return {name: (folder / name).read_bytes() for name in PHOTOGRAPHS}


@pytest.fixture(scope="session")
def processor() -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(Path(worker.__file__).parent / "demo").image_processor


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_exact_pixels_of_a_photograph_are_those_of_the_transformers_processor(
    name: str, photographs: dict[str, bytes], processor: Any, limits: Limits
) -> None:
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(photographs[name]))).convert("RGB")
    [expected] = processor(upright, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    ours = decode(photographs[name], limits, exact=True)
    assert np.array_equal(pixels(ours), expected.transpose(1, 2, 0))
    assert (ours.width, ours.height) == upright.size


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_drafted_pixels_are_close_to_exact_ones(name: str, photographs: dict[str, bytes], limits: Limits) -> None:
    drafted, exact = (pixels(decode(photographs[name], limits, exact=exact)).astype(int) for exact in (False, True))
    difference = np.abs(drafted - exact)
    assert difference.mean() < 0.3
    assert difference.max() <= 4


def test_small_jpeg_is_the_same_drafted_and_exact(photograph: Photograph, encoded: Encode, limits: Limits) -> None:
    data = encoded(photograph(640, 480))
    assert decode(data, limits) == decode(data, limits, exact=True)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_format_gives_the_pixels_that_went_in(
    kind: str, photograph: Photograph, encoded: Encode, limits: Limits
) -> None:
    image = photograph()
    ours = decode(encoded(image, kind, **LOSSLESS[kind]), limits)
    assert np.array_equal(pixels(ours), squashed(image))
    assert ours == DecodedImage(ours.pixels, 61, 37, kind)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "AVIF", "ICO", "MPO"])
def test_other_formats_are_decoded_as_pillow_does(
    kind: str, photograph: Photograph, encoded: Encode, limits: Limits
) -> None:
    options = {"save_all": True, "append_images": [photograph()]} if kind == "MPO" else {}
    data = encoded(photograph(), kind, **options)
    plain = Image.open(io.BytesIO(data))
    ours = decode(data, limits)
    assert np.array_equal(pixels(ours), squashed(plain.convert("RGB")))
    assert (ours.width, ours.height, ours.format) == (*plain.size, "JPEG" if kind == "MPO" else kind)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_turned_upright(
    orientation: int, kind: str, exact: bool, photograph: Photograph, encoded: Encode, limits: Limits
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    ours = decode(data, limits, exact=exact)
    assert (ours.width, ours.height) == upright.size == ((37, 61) if orientation >= 5 else (61, 37))
    assert np.array_equal(pixels(ours), squashed(upright.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_and_drafted_jpeg_is_close_to_exact_and_has_its_full_upright_size(
    orientation: int, photograph: Photograph, encoded: Encode, limits: Limits
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(1351, 919), exif=exif)
    drafted, exact = decode(data, limits), decode(data, limits, exact=True)
    assert drafted.pixels != exact.pixels
    assert np.abs(pixels(drafted).astype(int) - pixels(exact)).max() <= 4
    assert (drafted.width, drafted.height) == (exact.width, exact.height)
    assert (exact.width, exact.height) == ((919, 1351) if orientation >= 5 else (1351, 919))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_is_ignored(exif: bytes, photograph: Photograph, encoded: Encode, limits: Limits) -> None:
    data = encoded(photograph(), exif=exif)
    assert decode(data, limits).pixels == decode(encoded(photograph()), limits).pixels


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_ignored(
    value: int, photograph: Photograph, encoded: Encode, limits: Limits
) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(encoded(photograph(), exif=exif), limits).width == 61


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16", "LA", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "F", "I"])
def test_every_mode_of_tiff_gives_rgb(mode: str, photograph: Photograph, encoded: Encode, limits: Limits) -> None:
    image = photograph().convert("LA").convert("PA") if mode == "PA" else photograph().convert("L")
    if mode not in ("PA", "L"):
        image = photograph(mode="L" if mode in ("I;16", "F", "I") else "RGB").convert(mode)
    assert len(decode(encoded(image, "TIFF"), limits).pixels) == SIDE * SIDE * 3


def test_cmyk_photograph_looks_like_its_rgb(photograph: Photograph, encoded: Encode, limits: Limits) -> None:
    """Pillow writes CMYK as Adobe does, inverted."""
    image = photograph(300, 200)
    ours = pixels(decode(encoded(image.convert("CMYK"), quality=95), limits)).astype(int)
    assert np.abs(ours - squashed(image)).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_gray_is_scaled_and_not_clipped(kind: str, encoded: Encode, limits: Limits) -> None:
    ramp = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    ours = pixels(decode(encoded(Image.fromarray(ramp), kind), limits))
    assert np.array_equal(ours[..., 0], ramp >> 8)
    assert np.array_equal(ours[..., 0], ours[..., 2])


def test_floats_are_stretched_to_their_own_range(encoded: Encode, limits: Limits) -> None:
    ramp = np.linspace(-3, 9, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    ours = pixels(decode(encoded(Image.fromarray(ramp), "TIFF"), limits))
    assert np.abs(ours[..., 1] - (ramp + 3) / 12 * 255).max() <= 1
    ramp[0, 0] = np.nan
    assert code_of(encoded(Image.fromarray(ramp), "TIFF"), limits) == Code.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_transparent_pixels_are_white(kind: str, encoded: Encode, limits: Limits) -> None:
    ours = decode(encoded(Image.new("RGBA", (50, 40), (200, 10, 10, 0)), kind), limits)
    assert set(ours.pixels) == {255}


def test_half_transparent_pixels_are_half_white(encoded: Encode, limits: Limits) -> None:
    ours = decode(encoded(Image.new("LA", (9, 9), (0, 128)), "PNG"), limits)
    assert set(ours.pixels) == {127}


def test_transparent_palette_entry_is_white(encoded: Encode, limits: Limits) -> None:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    for kind in ("PNG", "GIF"):
        assert set(decode(encoded(image, kind, transparency=1), limits).pixels) == {255}
        assert pixels(decode(encoded(image, kind), limits))[0, 0].tolist() == [255, 0, 0]


def test_colour_key_is_white(encoded: Encode, limits: Limits) -> None:
    ours = decode(encoded(Image.new("RGB", (10, 10), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), limits)
    assert set(ours.pixels) == {255}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_first_of_many_frames_counts(kind: str, encoded: Encode, limits: Limits) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = pixels(decode(data, limits))[100, 100].tolist()
    assert red > 240 > 15 > max(green, blue)


def test_first_of_ten_thousand_frames_counts_alone(encoded: Encode, limits: Limits) -> None:
    one = encoded(Image.new("P", (2000, 2000), 3), "GIF")
    frame = one[one.index(b"\x2c") : -1]
    assert decode(one[:-1] + frame * 10_000 + b";", limits).width == 2000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.EMPTY_FILE),
        (b"just some words\n" * 20, Code.NOT_AN_IMAGE),
        (bytes(4096), Code.NOT_AN_IMAGE),
        (b"\x89PNG", Code.NOT_AN_IMAGE),
        (b"BMW is a maker of cars", Code.NOT_AN_IMAGE),
        (b"\xff\xd8\xff", Code.TRUNCATED),
        (b"\x89PNG\r\n\x1a\n", Code.TRUNCATED),
        (b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="http://www.w3.org/2000/svg"/>', Code.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Code.UNSUPPORTED_FORMAT),
        (b"%PDF-1.7\n", Code.UNSUPPORTED_FORMAT),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Code.UNSUPPORTED_FORMAT),
        (b"8BPS\0\x01" + bytes(40), Code.UNSUPPORTED_FORMAT),
        (b"\xff\x0a" + bytes(40), Code.UNSUPPORTED_FORMAT),
        (b"II*\0\x10\0\0\0CR\x02\0", Code.UNSUPPORTED_FORMAT),
    ],
)
def test_what_is_no_image_gets_the_right_code(data: bytes, code: Code, limits: Limits) -> None:
    assert code_of(data, limits) == code


def test_thumbnail_in_a_raw_file_is_not_taken_for_the_picture(
    photograph: Photograph, encoded: Encode, limits: Limits
) -> None:
    data = encoded(photograph(), "TIFF", tiffinfo={254: 1})
    assert code_of(data, limits) == Code.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000"])
def test_half_a_file_is_truncated(kind: str, photograph: Photograph, encoded: Encode, limits: Limits) -> None:
    data = encoded(photograph(300, 200), kind)
    assert code_of(data[: len(data) // 2], limits) == Code.TRUNCATED


def bombs() -> dict[str, bytes]:
    """Files of a kilobyte that claim 3.6 billion pixels."""
    side = 60_000
    tiff, jpeg = io.BytesIO(), io.BytesIO()
    Image.new("L", (8, 9)).save(tiff, "TIFF")
    Image.new("L", (8, 9)).save(jpeg, "JPEG")
    claim = {tag: struct.pack("<HHII", tag, 4, 1, side) for tag in (256, 257)}
    here = {tag: struct.pack("<HHII", tag, 4, 1, size) for tag, size in ((256, 8), (257, 9))}
    field = struct.pack("<HH", side, side)
    return {
        "PNG": png(side, side, 8, 2, b"\0" * 1000),
        "GIF": b"GIF89a" + field + b"\0\0\0,\0\0\0\0" + field + b"\0\x08",
        "BMP": b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
        "PPM": b"P6 %d %d 255\n" % (side, side),
        "TIFF": tiff.getvalue().replace(here[256], claim[256]).replace(here[257], claim[257]),
        "JPEG": jpeg.getvalue().replace(struct.pack(">BHH", 8, 9, 8), struct.pack(">BHH", 8, side, side)),
    }


@pytest.mark.parametrize("kind", bombs())
def test_pixel_bomb_is_refused_from_its_header(kind: str, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("its pixels were decoded"))
    assert code_of(bombs()[kind], limits) == Code.TOO_LARGE


def test_limit_of_pixels_is_exact(photograph: Photograph, encoded: Encode, limits: Limits) -> None:
    data = encoded(photograph(40, 25))
    assert decode(data, replace(limits, max_pixels=1000)).width == 40
    with pytest.raises(PermanentFailure, match="40×25 is more than 999 pixels"):
        decode(data, replace(limits, max_pixels=999))


def test_large_image_under_the_limit_gives_no_warning(encoded: Encode, limits: Limits) -> None:
    """Pillow warns from 89 megapixels on, and here warnings are errors."""
    assert decode(encoded(Image.new("1", (9500, 9500)), "PNG"), limits).width == 9500


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_metadata_bomb_costs_the_metadata_and_not_the_picture(name: bytes, limits: Limits) -> None:
    body = zlib.compress(bytes(50_000_000))
    data = {b"zTXt": b"k\0\0" + body, b"iCCP": b"p\0\0" + body, b"iTXt": b"k\0\1\0\0\0" + body}[name]
    bomb = png(2, 1, 8, 2, b"\0" + bytes([9] * 6), chunk(name, data))
    assert set(decode(bomb, limits).pixels) == {9}


@pytest.mark.parametrize("name", [b"eXIf", b"zTXt", b"iCCP", b"gAMA", b"pHYs"])
def test_broken_metadata_costs_the_metadata_and_not_the_picture(name: bytes, limits: Limits) -> None:
    broken = struct.pack(">I", 3) + name + b"bad" + b"\0\0\0\0"
    assert set(decode(png(2, 1, 8, 2, b"\0" + bytes([9] * 6), broken), limits).pixels) == {9}


def test_memory_that_is_not_there_makes_an_image_too_large(
    photograph: Photograph, encoded: Encode, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    data = encoded(photograph())
    monkeypatch.setattr("worker.images.squash", refuse)
    assert code_of(data, limits) == Code.TOO_LARGE


def test_every_size_gives_the_same_square(encoded: Encode, limits: Limits) -> None:
    for size in [(1, 1), (1, 5000), (5000, 1), (224, 224), (223, 449)]:
        ours = decode(encoded(Image.new("RGB", size, "red"), "PNG"), limits)
        assert ((ours.width, ours.height), len(ours.pixels)) == (size, SIDE * SIDE * 3)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_give_an_image_or_a_failure(data: bytes) -> None:
    attempt(data)


MAGICS = [
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM\0\0\0\0\0\0\0\0", b"II*\0", b"MM\0*", b"P6 "),
    *(b"\0\0\1\0", b"RIFF\0\0\0\0WEBP", b"\0\0\0 ftypavif", b"\xff\x4f\xff\x51"),
]


@given(st.sampled_from(MAGICS), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_behind_a_magic_give_an_image_or_a_failure(magic: bytes, data: bytes) -> None:
    attempt(magic + data)


def samples() -> list[bytes]:
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    found = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PPM"):
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}))
        found.append(buffer.getvalue())
    return found


@given(st.sampled_from(samples()), st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=4)), max_size=4))
@settings(max_examples=500, deadline=None)
def test_damaged_images_give_an_image_or_a_failure(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(data)
    for place, new in changes:
        at = place % min(len(damaged), 600)  # headers and metadata, where the plugins are
        damaged[at : at + len(new)] = new
    attempt(bytes(damaged))


def attempt(data: bytes) -> None:
    bounds = Limits(1 << 20, 1_000_000, 1 << 30, 5.0, 5.0)
    try:
        image = decode(data, bounds)
    except ImageFailure:
        return
    assert len(image.pixels) == SIDE * SIDE * 3
    assert 0 < image.width * image.height <= bounds.max_pixels
