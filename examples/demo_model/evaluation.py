# ruff: noqa: T201
"""How well a checkpoint grounds drawings it has not seen: through transformers' own processor and `generate` alone."""

import argparse
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import BoxTuple, Thing, draw_scene, location_indices, random_size
from language import (
    BRIEF,
    END,
    Exchange,
    absent_name,
    colour_questions,
    count_question,
    phrase,
    region,
    shape_questions,
    with_article,
)
from numpy.random import Generator
from PIL import Image
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration
from transformers.models.kosmos2.processing_kosmos2 import patch_index_to_coordinate

BOX = r"<patch_index_\d{4}><patch_index_\d{4}>"
BOXES = rf"<object>{BOX}(?:</delimiter_of_multi_objects/>{BOX})*</object>"
ENTITY = rf"<phrase>(?:▁[a-z]+)+</phrase>{BOXES}"
CAPTION = re.compile(rf"{ENTITY}(?:,{ENTITY})*(?:▁and{ENTITY})?\.</s>")
LOCATION = re.compile(rf"(?:{BOXES})?</s>")

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scene:
    image: Image.Image
    things: list[Thing]


@dataclass(frozen=True, slots=True)
class Reply:
    """The new tokens after a prompt, and the entities of the whole text with their boxes."""

    tokens: tuple[str, ...]
    entities: list[tuple[str, list[BoxTuple]]]

    @property
    def boxes(self) -> list[BoxTuple]:
        return [box for _, boxes in self.entities for box in boxes]


class DemoModel:
    """A checkpoint in float32, asked in batches whose prompts have one length.

    transformers answers left-padded rows wrongly: the positions of decoding count the pads.
    """

    def __init__(self, folder: Path, batch_size: int = 16) -> None:
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.model = Kosmos2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.batch_size = batch_size

    def ask(self, images: list[Image.Image], prompts: list[str]) -> list[Reply]:
        """A reply for each image and its prompt, decoded greedily."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for place, prompt in enumerate(prompts):
            by_length[len(self.processor.tokenizer(prompt).input_ids)].append(place)
        replies: dict[int, Reply] = {}
        for places in by_length.values():
            for start in range(0, len(places), self.batch_size):
                batch = places[start : start + self.batch_size]
                answers = self._ask_batch([images[k] for k in batch], [prompts[k] for k in batch])
                replies.update(zip(batch, answers, strict=True))
        return [replies[place] for place in range(len(prompts))]

    @torch.inference_mode()
    def _ask_batch(self, images: list[Image.Image], prompts: list[str]) -> list[Reply]:
        inputs = self.processor(text=prompts, images=images, padding=True, return_tensors="pt")
        ids = self.model.generate(**inputs, max_new_tokens=96, eos_token_id=2, do_sample=False)
        return [self._reply(row, inputs["input_ids"].shape[1]) for row in ids.tolist()]

    def _reply(self, ids: list[int], prompt_length: int) -> Reply:
        tokens = self.processor.tokenizer.convert_ids_to_tokens(ids[prompt_length:])
        tokens = tokens[: tokens.index(END) + 1] if END in tokens else tokens
        text = self.processor.decode(ids, skip_special_tokens=True)
        _, entities = self.processor.post_process_generation(text)
        return Reply(tuple(tokens), [(name, boxes) for name, _, boxes in entities])


def draw_scenes(rng: Generator, count: int) -> list[Scene]:
    """Drawings whose longer side is 160 to 640 pixels, with one to four things asked for each."""
    return [Scene(*draw_scene(rng, random_size(rng, 160, 640), int(rng.integers(1, 5)))) for _ in range(count)]


def evaluate(model: DemoModel, scenes: list[Scene], rng: Generator) -> Figures:
    """Every figure of the model card."""
    return caption_figures(model, scenes) | phrase_figures(model, scenes, rng) | answer_figures(model, scenes, rng)


def caption_figures(model: DemoModel, scenes: list[Scene]) -> Figures:
    """Of brief captions: are the phrases those of the things, and are the boxes of the right ones where they are?"""
    replies = model.ask([scene.image for scene in scenes], [BRIEF] * len(scenes))
    exact: dict[int, list[bool]] = defaultdict(list)
    overlaps: list[float] = []
    hits = said = there = 0
    for scene, reply in zip(scenes, replies, strict=True):
        told, truth = _boxes_by_name(reply.entities), _truth_by_name(scene.things)
        names_told, names = (Counter({name: len(boxes) for name, boxes in g.items()}) for g in (told, truth))
        exact[len(scene.things)].append(names_told == names)
        hits, said, there = hits + (names_told & names).total(), said + names_told.total(), there + names.total()
        for name in truth.keys() & told.keys():
            pairs = min(len(truth[name]), len(told[name]))
            overlaps += sorted(match(told[name], truth[name]), reverse=True)[:pairs]
    return {
        "caption_exact": _mean([value for values in exact.values() for value in values]),
        **{f"caption_exact_{count}": _mean(exact[count]) for count in sorted(exact)},
        "caption_precision": hits / max(1, said),
        "caption_recall": hits / there,
        "caption_iou": _mean(overlaps),
        "caption_iou50": _mean([overlap > 0.5 for overlap in overlaps]),
        "caption_malformed": _mean([not well_formed(CAPTION, reply) for reply in replies]),
        "grid_iou": _mean([iou(_on_grid(thing.box), thing.box) for scene in scenes for thing in scene.things]),
    }


def phrase_figures(model: DemoModel, scenes: list[Scene], rng: Generator) -> Figures:
    """Of phrase prompts: one thing that is there in every scene (all its twins count), and one that is not."""
    images = [scene.image for scene in scenes]
    names = [scene.things[rng.integers(len(scene.things))].name for scene in scenes]
    missing = [absent_name(rng, scene.things) for scene in scenes]
    found = model.ask(images, [phrase(f"the {name}", []).prompt for name in names])
    invented = model.ask(images, [phrase(f"the {name}", []).prompt for name in missing])
    truths = [_truth_by_name(scene.things)[with_article(n)] for scene, n in zip(scenes, names, strict=True)]
    overlaps = [o for reply, truth in zip(found, truths, strict=True) for o in match(reply.boxes, truth)]
    return {
        "phrase_iou": _mean(overlaps),
        "phrase_iou50": _mean([overlap > 0.5 for overlap in overlaps]),
        "phrase_count": _mean([len(r.boxes) == len(truth) for r, truth in zip(found, truths, strict=True)]),
        "phrase_malformed": _mean([not well_formed(LOCATION, reply) for reply in found]),
        "absent_unanswered": _mean([reply.tokens == (END,) for reply in invented]),
    }


def answer_figures(model: DemoModel, scenes: list[Scene], rng: Generator) -> Figures:
    """The fraction of word-perfect answers about a box, the number, a colour, and a shape (its box aside)."""
    asked: dict[str, list[tuple[Image.Image, Exchange]]] = defaultdict(list)
    for scene in scenes:
        asked["region"].append((scene.image, region(scene.things[rng.integers(len(scene.things))])))
        asked["count"].append((scene.image, count_question(scene.things)))
        for kind, questions in (("colour", colour_questions), ("shape", shape_questions)):
            asked[kind] += [(scene.image, exchange) for exchange in questions(scene.things)[:1]]
    return {f"{kind}_answer": _right_answers(model, exchanges) for kind, exchanges in asked.items()}


def _right_answers(model: DemoModel, asked: list[tuple[Image.Image, Exchange]]) -> float:
    replies = model.ask([image for image, _ in asked], [exchange.prompt for _, exchange in asked])
    pairs = zip(replies, asked, strict=True)
    return _mean([_without_boxes(reply.tokens) == _without_boxes(exchange.answer) for reply, (_, exchange) in pairs])


def well_formed(pattern: re.Pattern[str], reply: Reply) -> bool:
    """Does the reply have the form, with every box's lower right corner below and right of its upper left?"""
    cells = [int(token[13:17]) for token in reply.tokens if token.startswith("<patch_index_")]
    ordered = all(a % 32 <= b % 32 and a // 32 <= b // 32 for a, b in zip(cells[::2], cells[1::2], strict=False))
    return ordered and pattern.fullmatch("".join(reply.tokens)) is not None


def iou(a: BoxTuple, b: BoxTuple) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return width * height / (areas - width * height)


def match(boxes: list[BoxTuple], truth: list[BoxTuple]) -> list[float]:
    """For each true box, its overlap with the best box that none before it took; 0 where none is left."""
    left, overlaps = list(boxes), []
    for true in truth:
        best = max(left, key=lambda box: iou(box, true), default=None)
        overlaps.append(iou(best, true) if best else 0.0)
        if best:
            left.remove(best)
    return overlaps


def _boxes_by_name(entities: list[tuple[str, list[BoxTuple]]]) -> dict[str, list[BoxTuple]]:
    by_name: dict[str, list[BoxTuple]] = defaultdict(list)
    for name, boxes in entities:
        by_name[name] += boxes
    return by_name


def _truth_by_name(things: list[Thing]) -> dict[str, list[BoxTuple]]:
    return _boxes_by_name([(with_article(thing.name), [thing.box]) for thing in things])


def _on_grid(box: BoxTuple) -> BoxTuple:
    return patch_index_to_coordinate(*location_indices(box), 32)  # type: ignore[no-any-return]


def _without_boxes(tokens: tuple[str, ...]) -> list[str]:
    return [token for token in tokens if not token.startswith("<patch_index_")]


def _mean(values: list[float] | list[bool]) -> float:
    return float(np.mean(values)) if values else 0.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--drawings", type=int, default=500)
    parser.add_argument("--seed", type=int, required=True, help="one that neither training nor a choice has used")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(arguments.seed)
    figures = evaluate(DemoModel(arguments.checkpoint), draw_scenes(rng, arguments.drawings), rng)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1))
