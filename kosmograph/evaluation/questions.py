"""What every data set comes down to: images, and phrases to be found in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from schemas.errors import SourceError
from schemas.grounding import Corners

ALL = "all"
"""The group of every question of a data set that has groups within it."""

Pixels = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(gt=0)]
File = TypeVar("File", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt that asks for a phrase, and where that is: in fractions of the image, any of the boxes is right.

    Without `truth` the image has no such thing, and the right answer is no box. The answer counts in each of `groups`.
    """

    prompt: str
    truth: tuple[Corners, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image by its name in the annotations, with its size there and all that is asked of it."""

    name: str
    width: int
    height: int
    questions: tuple[Question, ...]


def phrase_prompt(phrase: str, before: str = "<grounding>") -> str:
    """The prompt after which the model writes where the phrase is."""
    return f"{before}<phrase>{phrase}</phrase>"


def pictures_of(asked: Iterable[tuple[str, tuple[int, int], Question]]) -> list[Picture]:
    """One picture for each image name, in the order of their first questions: an image is looked at once for all."""
    sizes: dict[str, tuple[int, int]] = {}
    questions: dict[str, list[Question]] = {}
    for name, size, question in asked:
        sizes.setdefault(name, size)
        questions.setdefault(name, []).append(question)
    return [Picture(name, *sizes[name], tuple(some)) for name, some in questions.items()]


def read_bytes(path: Path, remedy: str) -> bytes:
    """What is in the file. Raises SourceError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): {remedy}") from None


def read_json(path: Path, kind: type[File], what: str) -> File:
    """The annotation file. Raises SourceError for one that is no such file, with the place of what is wrong in it."""
    data = read_bytes(path, f"give {what}")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SourceError(f"{path} is not {what}: {place}: {first['msg']}") from None
