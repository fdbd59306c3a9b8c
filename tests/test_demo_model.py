"""The shipped checkpoint really grounds drawings that it has not seen.

The floors are well below the figures of its card (`worker/demo/README.md`): they fail when the model, the processor's
geometry or the drawing is broken, not when a seed is unlucky.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "worker" / "demo"
SEED = 20261123


@pytest.fixture(scope="module")
def evaluation() -> Iterator[Any]:
    """The module of examples/demo_model, a folder of scripts that import one another by name."""
    sys.path.insert(0, str(ROOT / "examples" / "demo_model"))
    import evaluation

    yield evaluation
    sys.path.pop(0)


@pytest.fixture(scope="module")
def model(evaluation: Any) -> Any:
    return evaluation.DemoModel(CHECKPOINT)


@pytest.fixture(scope="module")
def scenes(evaluation: Any) -> Any:
    return evaluation.draw_scenes(np.random.default_rng(SEED), 32)


def test_captions_name_and_place_what_is_drawn(evaluation: Any, model: Any, scenes: Any) -> None:
    figures = evaluation.caption_figures(model, scenes)
    assert figures["caption_exact"] >= 0.75
    assert figures["caption_precision"] >= 0.88
    assert figures["caption_recall"] >= 0.88
    assert figures["caption_iou50"] >= 0.85
    assert figures["caption_malformed"] <= 0.05


def test_phrases_are_found_where_they_are_and_mostly_not_where_they_are_not(
    evaluation: Any, model: Any, scenes: Any
) -> None:
    figures = evaluation.phrase_figures(model, scenes, np.random.default_rng(SEED))
    assert figures["phrase_iou50"] >= 0.70
    assert figures["phrase_malformed"] <= 0.05
    assert figures["absent_unanswered"] >= 0.40


def test_example_images_are_all_there_and_upright(evaluation: Any) -> None:
    import make_images

    names = {path.name for path in (ROOT / "examples" / "images").iterdir()}
    assert names == {picture.name for picture in make_images.PICTURES}
    for picture in make_images.PICTURES:
        with Image.open(ROOT / "examples" / "images" / picture.name) as image:
            assert ImageOps.exif_transpose(image).size == picture.size


def test_checkpoint_is_small_and_float32() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 8_000_000
    assert json.loads((CHECKPOINT / "config.json").read_text())["dtype"] == "float32"
