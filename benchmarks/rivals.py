"""Captions the two ways that benchmarks compare: the engine, and transformers' `generate` at its best."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worker.engine import Engine
from worker.generation import Pixels, Request
from worker.model import IMAGE_START, IMAGE_TOKENS, Kosmos

NEVER = 1 << 30
"""The id of an end token that never comes: it is in no vocabulary."""


def endless(kosmos: Kosmos) -> Kosmos:
    """The same model, which ends nowhere before the limit."""
    other = copy.copy(kosmos)
    other.vocabulary = kosmos.vocabulary._replace(eos=NEVER)
    return other


class Captioned(NamedTuple):
    """Token ids of each image, in the order of the images. The end token, where there is one, is the last."""

    token_ids: list[list[int]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.token_ids))


def by_engine(engine: Engine, images: Sequence[Pixels], prompt: str, limits: Sequence[int]) -> Captioned:
    """Each image as a request of its own, all at once, each with its limit."""
    requests = [Request(pixels, prompt, limit) for pixels, limit in zip(images, limits, strict=True)]
    futures = [engine.submit(request) for request in requests]
    return Captioned([future.result().token_ids for future in futures])


class Transformers:
    """`generate` with the pixels ready, one prompt length, no autograd: a batch runs until its longest row ends."""

    def __init__(self, kosmos: Kosmos, images: Sequence[Pixels], prompt: str) -> None:
        self.kosmos = kosmos
        self.prompt = torch.tensor(kosmos.prompt_ids(prompt), device=kosmos.device)
        blocks = (np.stack(images[start : start + 64]) for start in range(0, len(images), 64))
        self.pixels = torch.cat([kosmos.normalise(torch.from_numpy(block).to(kosmos.device)) for block in blocks])

    @torch.inference_mode()
    def __call__(self, batch: int, limits: Sequence[int]) -> Captioned:
        """All images, in batches in their order; each row is cut off at its limit."""
        rows: list[list[int]] = []
        for start in range(0, len(limits), batch):
            here = limits[start : start + batch]
            generated = self.generate(self.pixels[start : start + len(here)], max(here)).tolist()
            rows += [self._until_end(ids, limit) for ids, limit in zip(generated, here, strict=True)]
        return Captioned(rows)

    def generate(self, pixels: Tensor, limit: int) -> Tensor:
        """[n, tokens], padded behind the end token."""
        vocabulary = self.kosmos.vocabulary
        ids = self.prompt.expand(len(pixels), -1)
        places = torch.zeros_like(ids)
        places[:, IMAGE_START : IMAGE_START + IMAGE_TOKENS] = 1
        generated: Tensor = self.kosmos.model.generate(
            pixel_values=pixels,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            image_embeds_position_mask=places,
            do_sample=False,
            max_new_tokens=limit,
            eos_token_id=vocabulary.eos,
            pad_token_id=vocabulary.pad,
        )
        return generated[:, ids.shape[1] :]

    def _until_end(self, ids: list[int], limit: int) -> list[int]:
        eos = self.kosmos.vocabulary.eos
        return ids[: min(limit, ids.index(eos) + 1 if eos in ids else limit)]
