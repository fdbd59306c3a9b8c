"""A picture squashed to 224×224 by the bicubic filter of Pillow 13.

worker/resample.c does it two to four times as fast as Pillow, where a C compiler was there at install and the processor
has AVX2. It is optional: Pillow gives the same pixels.
"""

from PIL import Image

try:
    from worker import _resample
except ImportError:
    _resample = None  # type: ignore[assignment]

SIDE = 224
COMPILED = _resample is not None
COPIED_SIDE = 2048  # the way into C copies, at 6 bytes a pixel: beyond, that may break the limit of memory
Box = tuple[float, float, float, float]


def squash(image: Image.Image, box: Box | None = None) -> bytes:
    """The pixels of an RGB image, or of a box in it (left, upper, right, lower), as 224×224 in RGB, row by row."""
    width, height = image.size
    if not COMPILED or max(width, height) > COPIED_SIDE or width == height == SIDE:
        return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box).tobytes()
    return _resample.squash(image.tobytes(), width, height, box or (0, 0, width, height))
