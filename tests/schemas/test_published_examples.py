"""The examples of the model card of microsoft/kosmos-2-patch14-224, one for each task, from raw text to boxes."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transformers import AutoProcessor

from schemas.grounding import Corners, parse

SNOWMAN = (0.390625, 0.046875, 0.984375, 0.828125)


class Example(NamedTuple):
    """What the model wrote, and what the card reads in it."""

    raw_text: str
    caption: str
    entities: list[tuple[str, tuple[int, int], list[Corners]]]


def cells(first: int, second: int) -> str:
    return f"<object><patch_index_{first:04}><patch_index_{second:04}></object>"


EXAMPLES = {
    "phrase": Example(
        f"<grounding><phrase> a snowman</phrase>{cells(44, 863)}",
        "a snowman",
        [("a snowman", (0, 9), [SNOWMAN])],
    ),
    "referring": Example(
        f"<grounding><phrase> a snowman next to a fire</phrase>{cells(44, 863)}",
        "a snowman next to a fire",
        [("a snowman next to a fire", (0, 24), [SNOWMAN])],
    ),
    "region": Example(
        f"<grounding><phrase> It</phrase>{cells(44, 863)} is snowman in a hat and scarf",
        "It is snowman in a hat and scarf",
        [("It", (0, 2), [SNOWMAN])],
    ),
    "question": Example(
        "<grounding> Question: What is special about this image? Answer: The image features"
        f"<phrase> a snowman</phrase>{cells(44, 863)} sitting by<phrase> a campfire</phrase>{cells(643, 1009)}"
        " in the snow.",
        "Question: What is special about this image? Answer: The image features a snowman sitting by a campfire in the"
        " snow.",
        [
            ("a snowman", (71, 80), [SNOWMAN]),
            ("a campfire", (92, 102), [(0.109375, 0.640625, 0.546875, 0.984375)]),
        ],
    ),
    "question about a box": Example(
        f"<grounding> Question: Where is<phrase> the fire</phrase>{cells(5, 911)} next to? Answer: Near"
        f"<phrase> the snowman</phrase>{cells(44, 863)}.",
        "Question: Where is the fire next to? Answer: Near the snowman.",
        [
            ("the fire", (19, 27), [(0.171875, 0.015625, 0.484375, 0.890625)]),
            ("the snowman", (50, 61), [SNOWMAN]),
        ],
    ),
    "brief": Example(
        f"<grounding> An image of<phrase> a snowman</phrase>{cells(44, 863)} warming himself by"
        f"<phrase> a fire</phrase>{cells(5, 911)}.",
        "An image of a snowman warming himself by a fire.",
        [
            ("a snowman", (12, 21), [SNOWMAN]),
            ("a fire", (41, 47), [(0.171875, 0.015625, 0.484375, 0.890625)]),
        ],
    ),
    "detailed": Example(
        "<grounding> Describe this image in detail: The image features a snowman sitting by"
        f"<phrase> a campfire</phrase>{cells(5, 1007)} in the snow. He is wearing<phrase> a hat</phrase>"
        f"{cells(48, 250)},<phrase> scarf</phrase>{cells(240, 604)}, and<phrase> gloves</phrase>{cells(400, 532)}, with"
        f"<phrase> a pot</phrase>{cells(610, 872)} nearby and<phrase> a cup</phrase>{cells(796, 1023)} placed nearby.",
        "Describe this image in detail: The image features a snowman sitting by a campfire in the snow. He is wearing a"
        " hat, scarf, and gloves, with a pot nearby and a cup placed nearby.",
        [
            ("a campfire", (71, 81), [(0.171875, 0.015625, 0.484375, 0.984375)]),
            ("a hat", (109, 114), [(0.515625, 0.046875, 0.828125, 0.234375)]),
            ("scarf", (116, 121), [(0.515625, 0.234375, 0.890625, 0.578125)]),
            ("gloves", (127, 133), [(0.515625, 0.390625, 0.640625, 0.515625)]),
            ("a pot", (140, 145), [(0.078125, 0.609375, 0.265625, 0.859375)]),
            ("a cup", (157, 162), [(0.890625, 0.765625, 0.984375, 0.984375)]),
        ],
    ),
    "plain question": Example(
        " Question: What is in the image? Answer: A snowman and a fire.",
        "Question: What is in the image? Answer: A snowman and a fire.",
        [],
    ),
}


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(Path(__file__).parents[2] / "worker" / "demo")


@pytest.mark.parametrize("task", EXAMPLES)
def test_published_example_has_the_published_caption_spans_and_boxes(task: str) -> None:
    example = EXAMPLES[task]
    grounding = parse(example.raw_text)
    found = [(one.phrase, (one.start, one.end), [box.corners for box in one.boxes]) for one in grounding.entities]
    assert (grounding.caption, found) == (example.caption, example.entities)
    assert all(box.valid for entity in grounding.entities for box in entity.boxes)


@pytest.mark.parametrize("task", EXAMPLES)
def test_published_example_is_expected_to_be_read_as_transformers_reads_it(processor: Any, task: str) -> None:
    example = EXAMPLES[task]
    assert processor.post_process_generation(example.raw_text) == (example.caption, example.entities)
