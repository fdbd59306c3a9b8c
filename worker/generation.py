"""What goes into an engine and what comes out. Imports no torch, so that `--model null` needs none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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

    With `answer`, which follows the prompt after a space, nothing is generated: its tokens take the place of those that
    would be, with the probabilities that the model gives them.

    `follow_up` is told the generation, in the engine's thread, and gives what is to be asked next: about the same image
    that costs no look at it. The request is done when they are.
    """

    pixels: Pixels
    prompt: str
    max_new_tokens: int
    no_repeat_ngram_size: int = 0
    min_new_tokens: int = 0
    constrained: bool = False
    answer: str = ""
    follow_up: "Callable[[Generation], Sequence[Request]] | None" = None


class Glance(NamedTuple):
    """What the model's distribution says at a token beside the token itself: the columns of `Generation.glances`."""

    column: float
    """The mean of the 1,024-way location distribution around the chosen cell, in cells from the left, from the top.

    It says nothing where the token is no location; NaN where none around it has any probability.
    """
    row: float
    column_entropy: float
    """Of the marginals of all of it, in nats."""
    row_entropy: float
    log_object: float
    """The log-probability of `<object>`."""


def _no_glances() -> NDArray[np.float32]:
    return np.empty((0, len(Glance._fields)), np.float32)


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model said.

    `token_ids` are the generated tokens as `generate` gives them; the end token, where there is one, is the last of
    them, so they are never empty. `logprobs` has a value for each, of the model's own distribution, before
    `no_repeat_ngram_size` forbids anything; `glances` [tokens, 5] has a `Glance` for each that was generated.
    `raw_text` is prompt and answer after `</image>`, with their tags. `follow_ups` answer those of the request, None
    where the model failed.
    """

    token_ids: list[int]
    logprobs: list[float]
    raw_text: str
    finish_reason: Literal["stop", "length"]
    glances: NDArray[np.float32] = field(default_factory=_no_glances, repr=False, compare=False)
    follow_ups: Sequence["Generation | None"] = ()


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
    images_again: int = 0
    """Of the passes, those over images that a request had brought already, mirrored for a check."""
    still_s: float = 0.0
    """How long nothing has been computed of what is in hand; 0 with nothing in hand."""
