"""What an image costs a model of a given shape, in floating-point operations and bytes, and so the best that can be.

Counted with 2 operations to a multiplication and its addition; norms, activations and embeddings are left out.
"""

from benchmarks.models import Half, Shape
from worker.decoder import PREFIX
from worker.generation import IMAGE_SIZE
from worker.model import IMAGE_TOKENS

PROMPT = 71
"""Tokens of the brief prompt, the image among them."""
PATCH = 14
PATCHES = (IMAGE_SIZE // PATCH) ** 2
BYTES = 2
"""Of a number in bfloat16."""


def vision_flop(shape: Shape) -> float:
    """Vision tower and resampler."""
    places, text, vision = PATCHES + 1, shape.text.width, shape.vision
    stem = 2 * PATCHES * 3 * PATCH**2 * vision.width
    tower = vision.layers * (layer_flop(vision, places) + 4 * places**2 * vision.width)
    keys = places + IMAGE_TOKENS
    projections = 2 * text * (places * vision.width + (2 * IMAGE_TOKENS + 2 * keys) * text)
    return stem + tower + projections + 4 * IMAGE_TOKENS * keys * text


def prefill_flop(shape: Shape) -> float:
    """All of the brief prompt, with the head on its last token only."""
    attention = shape.text.layers * 2 * PROMPT**2 * shape.text.width  # causal: half of the square
    return shape.text.layers * layer_flop(shape.text, PROMPT) + attention + head_flop(shape)


def image_prefill_flop(shape: Shape) -> float:
    """The engine's pass over `<s><image>` and the image: no head, and of the last layer only keys and values."""
    last = 2 * PREFIX * 2 * shape.text.width**2
    attention = (shape.text.layers - 1) * 2 * PREFIX**2 * shape.text.width
    return (shape.text.layers - 1) * layer_flop(shape.text, PREFIX) + attention + last


def layer_flop(half: Half, tokens: int) -> float:
    """The products of a layer with its weights."""
    return 24.0 * half.width**2 * tokens


def head_flop(shape: Shape) -> float:
    return 2.0 * shape.text.width * shape.vocabulary


def weight_bytes(shape: Shape) -> float:
    """What every decode step reads."""
    return BYTES * (12 * shape.text.layers * shape.text.width**2 + shape.text.width * shape.vocabulary)


def kv_bytes(shape: Shape) -> float:
    """Of one token."""
    return BYTES * 2 * shape.text.layers * shape.text.width


def step_bytes(shape: Shape, slots: int, context: float) -> float:
    """What a decode step of so many slots reads, each with so many tokens behind it."""
    return weight_bytes(shape) + slots * context * kv_bytes(shape)


def serial_roofline(shape: Shape, slots: int, new_tokens: float, flop_s: float, bytes_s: float) -> float:
    """Images/s if everything took its least time, one thing after the other.

    Vision and prefill at the rate of a large product, decode steps of full slots at the bandwidth of a large copy.
    """
    dense_s = (vision_flop(shape) + prefill_flop(shape)) / flop_s
    step_s = step_bytes(shape, slots, PROMPT + new_tokens / 2) / bytes_s
    return 1 / (dense_s + new_tokens * step_s / slots)
