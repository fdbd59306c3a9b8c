"""Reading a file in COCO's format: its boxes, the names of its categories and images, and what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.calibration.truth import Truth, parts_of, read_truth
from schemas.errors import SetupError
from schemas.grounding import phrase_norm
from schemas.heads import head_of


def document(**changes: Any) -> dict[str, Any]:
    """One image of 200×100 pixels with a dog on its left half."""
    return {
        "images": [{"id": 7, "file_name": "val/1.jpg", "width": 200, "height": 100}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 100, 100], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "Teddy Bear"}, {"id": 5, "name": "bear"}],
    } | changes


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(content: Any) -> Path:
        path = tmp_path / "boxes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def truth(written: Any) -> Truth:
    return read_truth(written(document(categories=[{"id": n, "name": name} for n, name in enumerate(NAMES)])))


NAMES = ("dog", "Teddy Bear", "bear", "person", "scissors", "red circle", "wine glass")


def test_boxes_are_fractions_of_the_image(written: Any) -> None:
    (image,) = read_truth(written(document())).images
    assert (image.parts, image.boxes, image.crowded) == (("val", "1.jpg"), {"dog": [(0, 0, 0.5, 1)]}, set())


def test_crowd_is_no_box_but_known(written: Any) -> None:
    crowd = {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1, "segmentation": {}}
    (image,) = read_truth(written(document(annotations=[crowd]))).images
    assert (image.boxes, image.crowded) == ({}, {"dog"})


@pytest.mark.parametrize(
    ("phrase", "category"),
    [
        ("a dog", "dog"),
        ("two brown dogs", "dog"),
        ("dogs on the beach", "dog"),
        ("a large teddy bear", "teddy bear"),
        ("the teddy bears", "teddy bear"),
        ("a teddy bear on a bed", "teddy bear"),
        ("a brown bear", "bear"),
        ("a group of people", "person"),
        ("a pair of scissors", "scissor"),
        ("the Red Circle", "red circle"),
        ("a blue circle", ""),
        ("glasses", ""),
        ("two wine glasses", "wine glass"),
        ("a man holding a dog", ""),
        ("", ""),
    ],
)
def test_phrase_names_the_category_that_a_person_would_name(truth: Truth, phrase: str, category: str) -> None:
    norm = phrase_norm(phrase)
    assert truth.category_of(norm, head_of(norm)) == category


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("val/1.jpg", ("val", "1.jpg")),
        ("./val//1.jpg", ("val", "1.jpg")),
        ("/data/1.jpg", ("data", "1.jpg")),
        ("file:///data/a%20b%25.jpg", ("data", "a b%.jpg")),
        ("s3://bucket/data/a%20b.jpg", ("data", "a%20b.jpg")),
        ("https://host/data/a%20b.jpg?size=2", ("data", "a b.jpg")),
        ("s3://", ()),
    ],
)
def test_parts_of_a_name_are_those_that_people_call_it_by(name: str, parts: tuple[str, ...]) -> None:
    assert parts_of(name) == parts


BROKEN = {
    "no JSON": "{",
    "another format": [],
    "no lists": {},
    "no images": document(images=[]),
    "an image without a size": document(images=[{"id": 7, "file_name": "1.jpg", "width": 0, "height": 100}]),
    "a box of three sides": document(annotations=[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3]}]),
    "a side that is no number": '{"images": [], "annotations": [], "categories": [], "x": NaN}',
    "an image that is not listed": document(
        annotations=[{"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0}]
    ),
    "a category that is not listed": document(annotations=[{"image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4]}]),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_file_is_told_in_one_line_that_names_it(written: Any, content: Any) -> None:
    path = written(content)
    with pytest.raises(SetupError) as error:
        read_truth(path)
    assert str(error.value).startswith(f"{path} is not as COCO has it: ")
    assert "\n" not in str(error.value)


def test_missing_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read: No such file or directory; --truth takes a file"):
        read_truth(tmp_path / "none.json")
