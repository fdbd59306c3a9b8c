"""From fresh drawings to batches: every drawing with a caption and several questions, side by side after one image."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from drawing import COLOURS, SHAPES, Thing, draw_scene, random_size
from language import (
    BRIEF,
    DETAILED,
    Exchange,
    absent_name,
    caption,
    colour_questions,
    count_question,
    phrase,
    region,
    shape_questions,
    with_article,
)
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

PATCHES = 16
"""Patches along a side of the picture."""
IGNORED = -100
BLOCKED = -1e4


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture [3, 224, 224] in uint8, what is said about it as ids, and what each patch shows."""

    pixels: Tensor
    exchanges: list[tuple[list[int], list[int]]]
    patches: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of lessons: exchanges of one kind have the same columns in every row."""

    pixels: Tensor  # [rows, 3, 224, 224] uint8
    ids: Tensor  # [rows, columns]
    positions: Tensor  # [columns]
    labels: Tensor  # [rows, columns]: the token that follows, or IGNORED
    mask: Tensor  # [columns, columns]: BLOCKED between exchanges and to the future
    patches: Tensor  # [rows, PATCHES², 7]: see describe_patches


class Lessons(Dataset[Lesson]):
    """An endless book: page `index` is the same whoever turns it, and no page comes twice."""

    def __init__(self, seed: int, count: int, tokenizer: Any, phrases: int) -> None:
        self.seed, self.count, self.tokenizer, self.phrases = seed, count, tokenizer, phrases

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Lesson:
        rng = np.random.default_rng([self.seed, index])
        image, things = draw_scene(rng, random_size(rng, 160, 420), int(rng.choice(4, p=(0.12, 0.2, 0.33, 0.35))) + 1)
        image = compressed(rng, image) if rng.random() < 0.25 else image
        pixels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
        return Lesson(
            torch.from_numpy(pixels.copy()).permute(2, 0, 1),
            [self._ids(exchange) for exchange in sample_exchanges(rng, things, self.phrases)],
            describe_patches(things),
        )

    def _ids(self, exchange: Exchange) -> tuple[list[int], list[int]]:
        prompt = self.tokenizer(exchange.prompt, add_special_tokens=False).input_ids
        return prompt, self.tokenizer.convert_tokens_to_ids(list(exchange.answer))


def sample_exchanges(rng: Generator, things: list[Thing], phrases: int) -> list[Exchange]:
    """A caption, so many phrase prompts (a third of them for what is not there), and one question."""
    prompt = str(rng.choice((BRIEF, DETAILED, "An image of"), p=(0.84, 0.08, 0.08)))
    asked = [sample_phrase(rng, things) for _ in range(phrases)]
    return [caption(things, prompt), *asked, sample_question(rng, things)]


def sample_phrase(rng: Generator, things: list[Thing]) -> Exchange:
    """The whole name most often, else the colour or the shape alone; nothing is there to be found one time in three."""
    name = absent_name(rng, things) if rng.random() < 0.35 else things[rng.integers(len(things))].name
    colour, shape = name.split()
    form = rng.random()
    if form < 0.85:
        named = [thing for thing in things if thing.name == name]
    elif form < 0.93:
        name, named = shape, [thing for thing in things if thing.shape == shape]
    else:
        name, named = f"{colour} shape", [thing for thing in things if thing.colour == colour]
    article = rng.random()
    return phrase(f"the {name}" if article < 0.6 else with_article(name) if article < 0.85 else name, named)


def sample_question(rng: Generator, things: list[Thing]) -> Exchange:
    choices = [region(things[rng.integers(len(things))]), count_question(things)]
    for questions in (colour_questions(things), shape_questions(things)):
        choices += [questions[rng.integers(len(questions))]] if questions else []
    return choices[rng.integers(len(choices))]


def compressed(rng: Generator, image: Image.Image) -> Image.Image:
    """The image as JPEG shows it."""
    data = BytesIO()
    image.save(data, "JPEG", quality=int(rng.integers(50, 95)))
    return Image.open(data).convert("RGB")


def describe_patches(things: list[Thing]) -> Tensor:
    """[PATCHES², 7]: colour, shape, order and box of the thing whose box holds the patch's centre; -1 for none."""
    centres = (np.arange(PATCHES) + 0.5) / PATCHES
    grid = np.full((PATCHES, PATCHES, 7), -1, np.float32)
    for order, thing in enumerate(things):
        x1, y1, x2, y2 = thing.box
        inside = np.ix_((centres > y1) & (centres < y2), (centres > x1) & (centres < x2))
        grid[inside] = (list(COLOURS).index(thing.colour), SHAPES.index(thing.shape), order, *thing.box)
    return torch.from_numpy(grid.reshape(-1, 7))


@dataclass(frozen=True, slots=True)
class Packer:
    """Lessons to a batch. `prefix` is what comes before every prompt: the begin token and the image."""

    prefix: list[int]
    pad: int = 1

    def __call__(self, lessons: list[Lesson]) -> Batch:
        kinds = list(zip(*(lesson.exchanges for lesson in lessons), strict=True))
        widths = [max(len(prompt) + len(answer) for prompt, answer in kind) for kind in kinds]
        columns, start = len(self.prefix) + sum(widths), len(self.prefix)
        ids = torch.full((len(lessons), columns), self.pad)
        labels = torch.full((len(lessons), columns), IGNORED)
        ids[:, :start] = torch.tensor(self.prefix)
        positions, owner = torch.arange(columns), torch.zeros(columns, dtype=torch.long)
        for number, (kind, width) in enumerate(zip(kinds, widths, strict=True), 1):
            positions[start : start + width] = torch.arange(len(self.prefix), len(self.prefix) + width)
            owner[start : start + width] = number
            for row, (prompt, answer) in enumerate(kind):
                ids[row, start : start + len(prompt) + len(answer)] = torch.tensor(prompt + answer)
                first = start + len(prompt) - 1
                labels[row, first : first + len(answer)] = torch.tensor(answer)
            start += width
        return Batch(
            torch.stack([lesson.pixels for lesson in lessons]),
            ids,
            positions + self.pad + 1,
            labels,
            block_mask(owner),
            torch.stack([lesson.patches for lesson in lessons]),
        )


def block_mask(owner: Tensor) -> Tensor:
    """[columns, columns]: a column sees those before it of the prefix (owner 0) and of its own exchange."""
    place = torch.arange(len(owner))
    seen = (place[:, None] >= place) & ((owner == 0) | (owner[:, None] == owner))
    return torch.where(seen, 0.0, BLOCKED)
