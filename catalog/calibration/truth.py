"""The boxes that are known, from a file in COCO's format: https://cocodataset.org/#format-data (object detection)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, ValidationError

from schemas.errors import SetupError
from schemas.grounding import Corners, from_coco, phrase_norm
from schemas.heads import singular
from schemas.uris import path_of, scheme_of, split_s3

Id = int | str
Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Side = Annotated[float, Field(allow_inf_nan=False)]


class _Image(BaseModel):
    id: Id
    file_name: Annotated[str, Field(min_length=1)]
    width: Size
    height: Size


class _Category(BaseModel):
    id: Id
    name: Annotated[str, Field(min_length=1)]


class _Annotation(BaseModel):
    image_id: Id
    category_id: Id
    bbox: tuple[Side, Side, Side, Side]
    iscrowd: bool = False


class _Document(BaseModel):
    images: Annotated[list[_Image], Field(min_length=1)]
    annotations: list[_Annotation]
    categories: Annotated[list[_Category], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class TrueImage:
    """An image with its true boxes by category, as fractions; of the categories in `crowded` not every one has a box.

    `parts` are those of its name, the folders before the file.
    """

    parts: tuple[str, ...]
    width: float
    height: float
    boxes: dict[str, list[Corners]]
    crowded: set[str]


@dataclass(frozen=True, slots=True)
class Truth:
    """What a file says is to be seen. Categories are keys, as `key_of` makes them."""

    sha256: str
    images: Sequence[TrueImage]
    categories: frozenset[str]

    def category_of(self, norm: str, head: str) -> str:
        """The category that a phrase names, by its normal form and its head noun; "" for none.

        The whole phrase, or the longest words that end in its head: a large teddy bear is no bear where there are
        teddy bears.
        """
        if (key := key_of(norm)) in self.categories:
            return key
        words = norm.split()
        end = next((place for place, word in enumerate(words, 1) if singular(word) == head), 0)
        endings = (key_of(" ".join(words[start:end])) for start in range(end))
        found = next((key for key in endings if key in self.categories), "")
        return found or (head if head in self.categories else "")


def key_of(name: str) -> str:
    """A category or phrase in its normal form and in the singular."""
    *words, last = phrase_norm(name).split() or [""]
    return " ".join([*words, singular(last)])


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the file that a URI or a path names, as they are called: without percent signs."""
    scheme = scheme_of(name)
    if scheme == "file":
        try:
            name = str(path_of(name))
        except ValueError:
            name = unquote(name.partition("://")[2])
    elif scheme == "s3":
        try:
            name = split_s3(name)[1]
        except ValueError:
            return ()
    elif scheme:
        name = unquote(urlsplit(name).path)
    return tuple(part for part in name.split("/") if part not in ("", "."))


def read_truth(path: Path) -> Truth:
    """What a file says. Raises SetupError, in one line, where it is not as COCO has it."""
    try:
        data = path.read_bytes()
        document = _Document.model_validate_json(data)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}; --truth takes a file in COCO's format") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise SetupError(f"{path} is not as COCO has it: {place}: {first['msg']}") from None
    names = {one.id: key_of(one.name) for one in document.categories}
    images = {one.id: TrueImage(parts_of(one.file_name), one.width, one.height, {}, set()) for one in document.images}
    for one in document.annotations:
        if one.image_id not in images or one.category_id not in names:
            missing = f"the image {one.image_id!r}" if one.image_id not in images else f"category {one.category_id!r}"
            raise SetupError(f"{path} is not as COCO has it: {missing} has an annotation, but is not in its list")
        _add(one, images[one.image_id], names[one.category_id])
    return Truth(hashlib.sha256(data).hexdigest(), list(images.values()), frozenset(names.values()))


def _add(one: _Annotation, image: TrueImage, category: str) -> None:
    if one.iscrowd:
        image.crowded.add(category)
        return
    image.boxes.setdefault(category, []).append(from_coco(one.bbox, (image.width, image.height)))
