"""Drawn scenes: one to four coloured shapes on a plain, gradient, noisy or blotchy ground."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
BoxTuple = tuple[float, float, float, float]
FloatArray = NDArray[np.float32]
Ground = tuple[Image.Image, list[FloatArray]]

COLOURS: dict[str, Colour] = {
    "red": (215, 35, 40),
    "green": (35, 165, 60),
    "blue": (45, 75, 220),
    "yellow": (240, 220, 40),
    "orange": (245, 130, 25),
    "purple": (140, 55, 180),
    "white": (246, 246, 246),
    "black": (18, 18, 18),
}
# Squashing an image to 224×224 makes a square of a rectangle and a circle of an ellipse: one of each pair has a name.
SHAPES = ("circle", "square", "triangle", "cross", "ring")
OUTLINES = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "cross": tuple(
        (x / 3, y / 3)
        for x, y in ((1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1))
    ),
}

CONTRAST = 150
"""How far, in summed RGB, a shape's colour keeps from every colour of the ground."""
SMALLEST_SIDE = 0.15
"""Of the image: smaller shapes are a patch or two after the squash, too little for a model of this size."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape of a scene; the box is in fractions of the image."""

    colour: str
    shape: str
    box: BoxTuple

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def mirrored(self) -> "Thing":
        x1, y1, x2, y2 = self.box
        return Thing(self.colour, self.shape, (1 - x2, y1, 1 - x1, y2))


def draw_scene(
    rng: Generator, size: tuple[int, int], count: int, ground: Colour | None = None
) -> tuple[Image.Image, list[Thing]]:
    """The drawing, and what is on it from left to right: `count` things, or fewer where there was no room.

    The ground varies around its colour, which is any colour unless given.
    """
    image, ground_colours = draw_ground(rng, size, ground or tuple(rng.integers(0, 256, 3)))
    contrast = {name: _contrast(rgb, ground_colours) for name, rgb in COLOURS.items()}
    visible = [name for name in COLOURS if contrast[name] > CONTRAST] or [max(contrast, key=contrast.__getitem__)]
    things: list[Thing] = []
    for _ in range(count):
        box = find_place(rng, size, [thing.box for thing in things])
        if box is None:
            continue
        is_twin = bool(things) and rng.random() < 0.08
        colour, shape = (things[-1].colour, things[-1].shape) if is_twin else (rng.choice(visible), rng.choice(SHAPES))
        things.append(Thing(str(colour), str(shape), box))
        draw_shape(image, things[-1], _jittered(rng, COLOURS[things[-1].colour]))
    if rng.random() < 0.3:
        image = with_sensor_noise(rng, image)
    return image, sorted(things, key=lambda thing: thing.box[0])


def random_size(rng: Generator, shortest: int, longest: int) -> tuple[int, int]:
    """(width, height): the longer side between the bounds, the aspect ratio up to 1.8 either way."""
    side, ratio = rng.uniform(shortest, longest), math.exp(rng.uniform(-0.6, 0.6))
    return (int(side), int(side / ratio)) if ratio > 1 else (int(side * ratio), int(side))


def find_place(rng: Generator, size: tuple[int, int], taken: list[BoxTuple], tries: int = 25) -> BoxTuple | None:
    """A box, in fractions, that touches none of those taken; None after `tries` failures."""
    width, height = size
    for _ in range(tries):
        side, stretch = rng.uniform(0.22, 0.52) * min(size), math.exp(rng.uniform(-0.15, 0.15))
        w, h = max(side * stretch / width, SMALLEST_SIDE), max(side / stretch / height, SMALLEST_SIDE)
        if max(w, h) > 0.9:
            continue
        x, y = rng.uniform(0.01, 0.99 - w), rng.uniform(0.01, 0.99 - h)
        box = (x, y, x + w, y + h)
        if all(_apart(box, other) for other in taken):
            return box
    return None


def draw_shape(image: Image.Image, thing: Thing, colour: Colour) -> None:
    """Paints the thing into its box."""
    pen = ImageDraw.Draw(image)
    x1, y1, x2, y2 = (f * side for f, side in zip(thing.box, image.size * 2, strict=True))
    if thing.shape == "circle":
        pen.ellipse((x1, y1, x2, y2), fill=colour)
    elif thing.shape == "ring":
        pen.ellipse((x1, y1, x2, y2), outline=colour, width=max(2, int(0.2 * min(x2 - x1, y2 - y1))))
    else:
        pen.polygon([(x1 + u * (x2 - x1), y1 + v * (y2 - y1)) for u, v in OUTLINES[thing.shape]], fill=colour)


def draw_ground(rng: Generator, size: tuple[int, int], colour: Colour) -> Ground:
    """The ground, and the colours that shapes on it must differ from."""
    kinds: tuple[Callable[[Generator, tuple[int, int], FloatArray], Ground], ...]
    kinds = (_plain, _gradient, _noise, _blotches)
    return kinds[rng.integers(len(kinds))](rng, size, np.array(colour, np.float32))


def with_sensor_noise(rng: Generator, image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, np.int16) + rng.integers(-10, 11, (image.height, image.width, 1), dtype=np.int16)
    return _image(pixels)


def location_indices(box: BoxTuple, grid: int = 32) -> tuple[int, int]:
    """The cells of the upper left and the lower right corner.

    As `coordinate_to_patch_index` of transformers' processing_kosmos2.
    """
    x1, y1, x2, y2 = box
    left, top = (min(grid - 1, max(0, math.floor(v * grid))) for v in (x1, y1))
    right, bottom = (min(grid - 1, max(0, math.ceil(v * grid - 1))) for v in (x2, y2))
    return top * grid + left, bottom * grid + right


def _plain(rng: Generator, size: tuple[int, int], colour: FloatArray) -> Ground:
    return Image.new("RGB", size, tuple(int(v) for v in colour)), [colour]


def _gradient(rng: Generator, size: tuple[int, int], colour: FloatArray) -> Ground:
    end = np.clip(colour + rng.uniform(-110, 110, 3), 0, 255).astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.array([[0, math.cos(angle)], [math.sin(angle), math.cos(angle) + math.sin(angle)]])
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)
    corners = _image(colour + (end - colour) * ramp[..., None])
    return corners.resize(size, Image.Resampling.BILINEAR), [colour, (colour + end) / 2, end]


def _noise(rng: Generator, size: tuple[int, int], colour: FloatArray) -> Ground:
    shape = (size[1] // 2 + 1, size[0] // 2 + 1, rng.choice((1, 3)))
    grain = rng.standard_normal(shape, dtype=np.float32) * rng.uniform(4, 22)
    return _image(colour + grain).resize(size, Image.Resampling.NEAREST), [colour]


def _blotches(rng: Generator, size: tuple[int, int], colour: FloatArray) -> Ground:
    cells = int(rng.integers(3, 12))
    spots = rng.standard_normal((cells, cells, 3), dtype=np.float32) * rng.uniform(4, 22)
    return _image(colour + spots).resize(size, Image.Resampling.BICUBIC), [colour]


def _image(pixels: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _contrast(rgb: Colour, others: list[FloatArray]) -> float:
    return min(float(np.abs(np.asarray(rgb) - other).sum()) for other in others)


def _jittered(rng: Generator, rgb: Colour) -> Colour:
    red, green, blue = np.clip(np.asarray(rgb) + rng.uniform(-14, 14, 3), 0, 255)
    return int(red), int(green), int(blue)


def _apart(a: BoxTuple, b: BoxTuple, gap: float = 0.01) -> bool:
    return a[0] > b[2] + gap or a[2] < b[0] - gap or a[1] > b[3] + gap or a[3] < b[1] - gap
