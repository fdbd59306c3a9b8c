"""RefCOCO, RefCOCO+ and RefCOCOg as MDETR has prepared them: each image entry is an expression, with one box."""

from pathlib import Path

from pydantic import BaseModel

from kosmograph.evaluation.questions import (
    Picture,
    Pixels,
    Question,
    Side,
    phrase_prompt,
    pictures_of,
    read_json,
)
from schemas.errors import SourceError
from schemas.grounding import from_coco

WHAT = "an annotation file of MDETR for referring expressions, such as finetune_refcoco_val.json"


class Expression(BaseModel):
    """An entry of `images`. Several have one `file_name`."""

    id: int
    file_name: str
    width: Side
    height: Side
    caption: str
    dataset_name: str = "refcoco"


class Annotation(BaseModel):
    """Where the thing of an expression is: x, y, width, height in pixels."""

    image_id: int
    bbox: tuple[Pixels, Pixels, Pixels, Pixels]


class Expressions(BaseModel):
    """The file."""

    images: list[Expression]
    annotations: list[Annotation]


def read_refcoco(path: Path) -> list[Picture]:
    """The expressions, image by image. Raises SourceError where one has no box."""
    file = read_json(path, Expressions, WHAT)
    boxes = {one.image_id: one.bbox for one in reversed(file.annotations)}
    if missing := [one.id for one in file.images if one.id not in boxes]:
        raise SourceError(f"{path} has no annotation for the image id {missing[0]}: download the file again")
    return pictures_of((one.file_name, (one.width, one.height), _question(one, boxes[one.id])) for one in file.images)


def _question(one: Expression, bbox: tuple[float, float, float, float]) -> Question:
    truth = from_coco(bbox, (one.width, one.height))
    return Question(phrase_prompt(one.caption.strip()), (truth,), (one.dataset_name,))
