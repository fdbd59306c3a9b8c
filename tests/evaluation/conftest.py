"""Drawings with their truth, and the demo model as transformers alone runs it."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

ROOT = Path(__file__).parents[2]
SEED = 20261124


@dataclass(frozen=True)
class Drawing:
    """A file with what is on it: name (`red ring`) → boxes in pixels, x, y, width, height."""

    path: Path
    size: tuple[int, int]
    things: dict[str, list[list[float]]]


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[Drawing]:
    """Eight of them: the first four in train2014 with COCO's names, the others beside it."""
    sys.path.insert(0, str(ROOT / "examples" / "demo_model"))
    try:
        scenes = importlib.import_module("evaluation").draw_scenes(np.random.default_rng(SEED), 8)
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("images")
    (folder / "train2014").mkdir()
    drawn = []
    for number, scene in enumerate(scenes):
        path = folder / (f"train2014/COCO_train2014_{number:012}.png" if number < 4 else f"{number}.png")
        scene.image.save(path)
        width, height = scene.image.size
        things: dict[str, list[list[float]]] = {}
        for thing in scene.things:
            x1, y1, x2, y2 = thing.box
            box = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            things.setdefault(thing.name, []).append(box)
        drawn.append(Drawing(path, scene.image.size, things))
    return drawn


@pytest.fixture(scope="session")
def ask() -> Callable[[Path, str, str], list[list[float]]]:
    """The boxes, in pixels as COCO has them, that transformers' own processor and `generate` find for a phrase."""
    from transformers import AutoProcessor, Kosmos2ForConditionalGeneration

    folder = ROOT / "worker" / "demo"
    processor: Any = AutoProcessor.from_pretrained(folder)
    model: Any = Kosmos2ForConditionalGeneration.from_pretrained(folder).eval()
    model.image_to_text_projection.x_attn.is_causal = False

    @cache
    def boxes(path: Path, prompt: str, phrase: str) -> list[list[float]]:
        with Image.open(path) as image:
            width, height = image.size
            inputs = processor(text=prompt, images=image.convert("RGB"), return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=64, no_repeat_ngram_size=3, do_sample=False, eos_token_id=2)
        (text,) = processor.batch_decode(ids, skip_special_tokens=True)
        _, entities = processor.post_process_generation(text)
        return [
            [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            for name, _, found in entities
            if name == phrase
            for x1, y1, x2, y2 in found
        ]

    return boxes


def hits(found: list[list[float]], truth: list[list[float]]) -> bool:
    """Whether a box lies on a true one, by the COCO API's own arithmetic."""
    return bool(found) and bool((mask.iou(np.array(found), np.array(truth), [0] * len(truth)) >= 0.5).any())
