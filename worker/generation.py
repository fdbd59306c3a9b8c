"""What goes into an engine and what comes out. Imports no torch, so that `--model null` needs none."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 224

Pixels = NDArray[np.uint8]
"""uint8 [224, 224, 3]: the whole upright image in RGB, squashed."""


class Vocabulary(NamedTuple):
    """The ids of the tokens that mean something beyond words. The 1,024 location tokens go on from `first_patch`."""

    eos: int
    pad: int
    phrase: int
    end_phrase: int
    object: int
    end_object: int
    delimiter: int
    first_patch: int


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """One prompt for one image. Requests that hold the same array share the work on the image.

    `no_repeat_ngram_size` and `min_new_tokens` mean what they mean in `generate`. With `constrained`, location tokens
    come only as well-formed boxes: two of them, the lower right one not left of nor above the upper left one, between
    the tags of an object, and no object is begun that the limit would cut off.
    """

    pixels: Pixels
    prompt: str
    max_new_tokens: int
    no_repeat_ngram_size: int = 0
    min_new_tokens: int = 0
    constrained: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model said.

    `token_ids` are the generated tokens as `generate` gives them; the end token, where there is one, is the last of
    them, so they are never empty. `logprobs` has a value for each, of the model's own distribution, before
    `no_repeat_ngram_size` forbids anything. `raw_text` is prompt and answer after `</image>`, with their tags.
    """

    token_ids: list[int]
    logprobs: list[float]
    raw_text: str
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What an engine has done so far, and what it has in hand."""

    generations: int
    images: int
    """Passes of the vision tower: fewer than generations where several prompts shared an image."""
    tokens: int
    steps: int
    """Decode steps, each of all slots."""
    busy_s: float
    """Time in which it had something in hand: the device at work, and what the engine does around it."""
    waiting: int
    running: int
    slots: int
    """Falls when memory runs out."""
