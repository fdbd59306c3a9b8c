"""With `--exact` and float32 the pipeline says what the plain transformers loop says, word for word, box for box."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration

from schemas.recipes import MAX_NEW_TOKENS, prompt_for
from schemas.settings import load_settings
from tests.pipeline.conftest import Kosmograph
from worker.images import Limits, upright

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples/images").iterdir())
PHRASE = "a red circle"
PROMPTS = {task: prompt_for(task, PHRASE) for task in ("brief", "detailed", "phrase")}


@cache
def reference() -> tuple[Any, Any]:
    """transformers' own processor and model."""
    folder = ROOT / "worker/demo"
    model = Kosmos2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return AutoProcessor.from_pretrained(folder), model.eval()


def plain_loop(path: Path, task: str) -> tuple[str, list[tuple[str, tuple[int, int], list[tuple[float, ...]]]]]:
    """Caption and entities of one picture by transformers alone, as its documentation does it."""
    processor, model = reference()
    image = upright(path.read_bytes(), Limits.from_settings(load_settings()))
    inputs = processor(text=PROMPTS[task], images=image, return_tensors="pt")
    ids = model.generate(
        **inputs, use_cache=True, do_sample=False, max_new_tokens=MAX_NEW_TOKENS[task], eos_token_id=2, pad_token_id=1
    )
    text = processor.batch_decode(ids, skip_special_tokens=True)[0]
    return processor.post_process_generation(text)


@pytest.fixture(scope="module")
def exact(new_kosmograph: Callable[[], Kosmograph]) -> Kosmograph:
    """All drawings, annotated with `--exact` for three prompts."""
    kosmograph = new_kosmograph()
    options = ("--task", "brief", "--task", "detailed", "--phrase", PHRASE)
    run = kosmograph.annotate(*map(str, EXAMPLES), "--model", "demo", "--exact", *options)
    assert run.code == 0, run.err
    return kosmograph


def test_annotations_are_those_of_the_plain_loop(exact: Kosmograph) -> None:
    captions = {(name_of(row), row["task"]): row["caption"] for row in exact.sql("SELECT * FROM captions")}
    boxes = exact.sql("SELECT * FROM groundings ORDER BY entity, box")
    for path in EXAMPLES:
        for task in PROMPTS:
            expected_caption, entities = plain_loop(path, task)
            expected = [(phrase, span, tuple(box)) for phrase, span, some in entities for box in some]
            found = [
                (row["phrase"], (row["span_start"], row["span_end"]), (row["x1"], row["y1"], row["x2"], row["y2"]))
                for row in boxes
                if (name_of(row), row["task"]) == (path.name, task)
            ]
            assert captions[path.name, task] == expected_caption
            assert found == expected


def test_try_and_show_give_the_same_scores_as_json(exact: Kosmograph) -> None:
    picture = str(ROOT / "examples/images/postcard.jpg")
    run = exact("try", picture, "--model", "demo", "--json", "--task", "brief", "--phrase", "a circle")
    tried, given = (answer["groundings"] for answer in json.loads(run.out))
    assert all(0 < box["score"] <= 1 and 0 < box["phrase_score"] <= 1 for box in tried)
    assert given
    assert {box["phrase_score"] for box in given if box["phrase"] == "a circle"} == {None}
    (shown,) = [one for one in json.loads(exact("show", picture, "--json").out) if one["task"] == "brief"]
    scores = [(box["score"], box["phrase_score"]) for box in shown["boxes"]]
    assert scores == [pytest.approx((box["score"], box["phrase_score"]), rel=1e-4) for box in tried]


def name_of(row: dict[str, Any]) -> str:
    return str(row["uri"]).rpartition("/")[2]
