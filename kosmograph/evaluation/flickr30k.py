"""Flickr30k Entities: sentences from MDETR's file, phrases and boxes from the folder of the data set itself."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pydantic import BaseModel

from kosmograph.evaluation.questions import (
    ALL,
    Picture,
    Question,
    Side,
    phrase_prompt,
    pictures_of,
    read_bytes,
    read_json,
)
from schemas.errors import SourceError
from schemas.grounding import Corners, fractions

WHAT = "an annotation file of MDETR for Flickr30k, such as final_flickr_separateGT_val.json"
REMEDY = "--entities takes the folder of Flickr30k Entities, which has Annotations and Sentences"

_PHRASE = re.compile(r"\[/EN#(?P<id>\d+)(?P<types>(?:/\w+)+) (?P<words>[^\]]*)\]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Sentence(BaseModel):
    """An entry of `images`: one sentence about an image, and the spans of its phrases."""

    file_name: str
    width: Side
    height: Side
    caption: str
    original_img_id: int
    sentence_id: int
    tokens_positive_eval: list[list[tuple[int, int]]]


class Sentences(BaseModel):
    """The file."""

    images: list[Sentence]


class Phrase(NamedTuple):
    """Of a sentence of the data set: the id by which boxes know it, its types (people, clothing …), its words."""

    id: str
    types: tuple[str, ...]
    words: str


def read_flickr30k(path: Path, entities: Path) -> list[Picture]:
    """The phrases that have boxes, image by image. Raises SourceError for a file that is missing or broken."""
    return pictures_of(_asked(read_json(path, Sentences, WHAT).images, entities))


def _asked(sentences: list[Sentence], entities: Path) -> Iterator[tuple[str, tuple[int, int], Question]]:
    known: dict[int, tuple[list[list[Phrase]], dict[str, list[Corners]]]] = {}
    for sentence in sentences:
        image = sentence.original_img_id
        if image not in known:
            said = phrases_in(read_bytes(entities / "Sentences" / f"{image}.txt", REMEDY).decode(errors="replace"))
            known[image] = said, boxes_in(entities / "Annotations" / f"{image}.xml")
        phrases, boxes = known[image]
        if not 0 <= sentence.sentence_id < len(phrases):
            raise SourceError(f"{entities} has no sentence {sentence.sentence_id} of the image {image}: {REMEDY}")
        size = sentence.width, sentence.height
        for question in questions_of(sentence, phrases[sentence.sentence_id], boxes):
            yield sentence.file_name, size, question


def questions_of(sentence: Sentence, phrases: list[Phrase], boxes: dict[str, list[Corners]]) -> Iterator[Question]:
    """One for each phrase that has a box, asked after the words that stand before it.

    A phrase is known by its words: where two of a sentence read alike, the first stands for both, as in the paper's
    own script (microsoft/unilm, kosmos-2/evaluation/flickr_entities).
    """
    by_words = {phrase.words: phrase for phrase in reversed(phrases) if phrase.id in boxes}
    for spans in sentence.tokens_positive_eval:
        (start, end), *_ = spans or [(0, 0)]
        phrase = by_words.get(" ".join(sentence.caption[start:end].split()))
        if phrase is None:
            continue
        prompt = phrase_prompt(sentence.caption[start:end], f"<grounding>{sentence.caption[:start]} ")
        truth = tuple(fractions(*box, (sentence.width, sentence.height)) for box in boxes[phrase.id])
        yield Question(prompt, truth, (ALL, *phrase.types))


def phrases_in(text: str) -> list[list[Phrase]]:
    """The phrases of each line of a file of sentences: `[/EN#28/people A man] with [/EN#29/clothing a hat] .`"""
    return [
        [
            Phrase(found["id"], tuple(found["types"][1:].split("/")), " ".join(found["words"].split()))
            for found in _PHRASE.finditer(line)
        ]
        for line in text.splitlines()
        if line
    ]


def boxes_in(path: Path) -> dict[str, list[Corners]]:
    """Phrase id → its boxes in pixels; phrases without one (scenes, what is not to be seen) are left out."""
    boxes: dict[str, list[Corners]] = {}
    try:
        for thing in parse_xml(read_bytes(path, REMEDY)).findall("object"):
            if (found := thing.find("bndbox")) is not None:
                x1, y1, x2, y2 = (float(found.findtext(name, "")) for name in _CORNERS)
                for name in thing.findall("name"):
                    boxes.setdefault(str(name.text), []).append((x1, y1, x2, y2))
    except (ValueError, expat.ExpatError) as error:
        raise SourceError(f"{path} is broken ({error}): copy it again") from None
    return boxes


def parse_xml(data: bytes) -> Element:
    """The root. A document type is refused with ValueError: it could define entities that fill the memory."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.Parse(data, True)
    return builder.close()


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it has a document type, which such files have not")
