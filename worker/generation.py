"""What goes into an engine and what comes out. Imports no torch, so that `--model null` needs none."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from schemas.errors import KosmographError, SetupError

IMAGE_SIZE = 224

Pixels = NDArray[np.uint8]
"""uint8 [224, 224, 3]: the whole upright image in RGB, squashed."""


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """One prompt for one image."""

    pixels: Pixels
    prompt: str
    max_new_tokens: int
    no_repeat_ngram_size: int = 0


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
    """What an engine has done so far. `busy_s` is the time in the model; `batch_size` falls when memory runs out."""

    images: int
    tokens: int
    batches: int
    busy_s: float
    waiting: int
    batch_size: int


class EngineBroken(SetupError):
    """The model fails on every image: the worker's fault, never an image's."""


class EngineClosed(KosmographError):
    """The engine was closed before this request was done: it may be submitted elsewhere."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(args or ("the engine was closed before this image was done",)))
