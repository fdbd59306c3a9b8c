"""What the model is asked about its own answer, and what it says to that: the parts of trust that a check can give.

All of it is about the same image, whose pass is shared; only the mirrored image is another one.
"""

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from schemas.grounding import Box, Corners, Entity, Grounding, iou, parse, phrase_norm
from schemas.recipes import Recipe
from schemas.verification import MIRROR
from worker.generation import Generation, Glance, Pixels, Request

ALONE = "<grounding><phrase>{}</phrase>"
NAME = "<grounding><phrase>It</phrase><object><patch_index_{:04d}><patch_index_{:04d}></object> is"
BOX_TOKENS = 3
"""The beginning of an object, or what stands between two boxes, and two locations."""
MOST_PHRASES, MOST_BOXES = 16, 32
"""Of an annotation are checked: one that goes on and on is not worth more."""

_CELL = "<patch_index_"
_ARTICLE = re.compile(r"(?:an?|the)\s+", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_SIDES = {"left": "right", "right": "left"}
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


class Check(NamedTuple):
    """A question about a phrase, or about one of its boxes."""

    kind: Literal["alone", "mirrored", "named", "absent"]
    phrase: str
    boxes: int = 1
    """How many boxes the answer may have."""
    box: Box | None = None

    def request(self, pixels: Pixels) -> Request:
        if self.box is not None:
            return Request(pixels, NAME.format(self.box.first, self.box.second), 1, answer=_named(self.phrase)[0])
        phrase = _other_way(self.phrase) if self.kind == "mirrored" else self.phrase
        return Request(pixels, ALONE.replace("{}", phrase), BOX_TOKENS * self.boxes)


class Checked(NamedTuple):
    """What came of the checks of an annotation: None, or nothing at a phrase or box, where there was no check."""

    presence: dict[str, float]
    """The probability of a box for the phrase on its own."""
    alone: dict[str, Sequence[Corners]]
    """The boxes of the phrase on its own, and on the mirrored image, mirrored back."""
    mirrored: dict[str, Sequence[Corners]]
    naming: dict[Box, float]
    """The geometric mean of the probabilities of the phrase's words as the name of what is in the box."""
    absent_phrase: str | None = None
    yes_bias: float | None = None
    """The probability of a box for a phrase that is not there, and the score of that box where there was one."""
    absent_score: float | None = None


def follow_up_of(recipe: Recipe, prompt: str, pixels: Pixels) -> Callable[[Generation], list[Request]] | None:
    """What is to be asked about the answer to this prompt; None where the recipe does not verify."""
    if not recipe.verify:
        return None

    def follow_up(generation: Generation) -> list[Request]:
        checks = _checks(recipe, prompt, generation.raw_text, parse(generation.raw_text))
        mirrored = np.ascontiguousarray(pixels[:, ::-1]) if any(one.kind == "mirrored" for one in checks) else pixels
        return [one.request(mirrored if one.kind == "mirrored" else pixels) for one in checks]

    return follow_up


def checked(recipe: Recipe, prompt: str, generation: Generation, grounding: Grounding) -> Checked:
    """What the follow-ups of a generation say. The phrase of a prompt that is one on its own is present as it says."""
    found = Checked({}, {}, {}, {})
    if _is_alone(prompt) and grounding.entities and len(generation.glances):
        found.presence[grounding.entities[0].phrase] = _presence(generation)
    if not recipe.verify:
        return found
    checks = _checks(recipe, prompt, generation.raw_text, grounding)
    for check, answer in zip(checks, generation.follow_ups, strict=True):
        if answer is not None:
            found = _with(found, check, answer)
    return found


def generated(prompt: str, raw_text: str, entities: Sequence[Entity]) -> Iterator[tuple[Entity, Sequence[Box]]]:
    """The entities with those of their boxes that the model gave, and not the prompt."""
    given, all_ = prompt.count(_CELL), raw_text.count(_CELL)
    for entity in entities:
        yield entity, [box for box in entity.boxes if all_ + box.token >= given]


def _checks(recipe: Recipe, prompt: str, raw_text: str, grounding: Grounding) -> list[Check]:
    """The same for the same annotation: what is asked, and later in which order the answers are."""
    boxes: dict[str, list[Box]] = {}
    for entity, own in generated(prompt, raw_text, grounding.entities):
        if entity.phrase and own:
            boxes.setdefault(entity.phrase, []).extend(own)
    phrases, is_alone = list(boxes)[:MOST_PHRASES], _is_alone(prompt)
    checks = []
    for phrase in phrases:
        most = min(len(boxes[phrase]), MOST_BOXES)
        checks += [] if is_alone else [Check("alone", phrase, most)]
        checks += [Check("mirrored", phrase, most)] if recipe.verify == MIRROR else []
    valid = dict.fromkeys((phrase, box) for phrase in phrases for box in boxes[phrase] if box.valid)
    checks += [Check("named", phrase, box=box) for phrase, box in list(valid)[:MOST_BOXES]]
    absent = _absent(recipe.absent, grounding) if phrases else None
    return checks + ([Check("absent", absent)] if absent else [])


def _with(found: Checked, check: Check, answer: Generation) -> Checked:
    if check.box is not None:
        skipped = _named(check.phrase)[1]
        found.naming[check.box] = math.exp(math.fsum(answer.logprobs[skipped:]) / len(answer.logprobs[skipped:]))
    elif check.kind == "alone":
        found.presence[check.phrase] = _presence(answer)
        found.alone[check.phrase] = _corners(answer)
    elif check.kind == "mirrored":
        found.mirrored[check.phrase] = [(1 - x2, y1, 1 - x1, y2) for x1, y1, x2, y2 in _corners(answer)]
    else:
        boxed = bool(_corners(answer))
        score = math.exp(math.fsum(answer.logprobs[1:BOX_TOKENS]) / 2) if boxed else None
        return found._replace(absent_phrase=check.phrase, yes_bias=_presence(answer), absent_score=score)
    return found


def _is_alone(prompt: str) -> bool:
    """Whether the prompt is nothing but a phrase to be grounded."""
    return re.fullmatch(r"\s*<grounding>\s*<phrase>[^<]*</phrase>\s*", prompt) is not None


def _absent(candidates: Sequence[str], grounding: Grounding) -> str | None:
    """One that the caption does not speak of, in other words for other captions; None where it speaks of all.

    It speaks of a camel where it says `camels`, so only the beginning of a word must be there.
    """
    words = f" {' '.join(_WORD.findall(grounding.caption.lower()))}"
    left = [phrase for phrase in candidates if f" {' '.join(_WORD.findall(phrase_norm(phrase)))}" not in words]
    return left[zlib.crc32(grounding.caption.encode("utf-8", "surrogatepass")) % len(left)] if left else None


def _named(phrase: str) -> tuple[str, int]:
    """The phrase as one says what something is, with an article, and how many tokens of it are not the phrase's own."""
    words = _ARTICLE.sub("", phrase, count=1) if _ARTICLE.match(phrase) else phrase
    if words == phrase and words.endswith("s"):  # a plural, most likely, which has none
        return words, 0
    return f"{'an' if words[:1].lower() in tuple('aeiou') else 'a'} {words}", 1


def _other_way(phrase: str) -> str:
    """The phrase for the mirrored image: what is left is right there."""
    return _SIDE.sub(lambda found: _SIDES[found[1].lower()], phrase)


def _presence(answer: Generation) -> float:
    return math.exp(min(0.0, Glance(*answer.glances[0].tolist()).log_object))


def _corners(answer: Generation) -> list[Corners]:
    return [box.corners for entity in parse(answer.raw_text).entities for box in entity.boxes]


def agreement(box: Box, others: Sequence[Corners] | None) -> float | None:
    """The IoU with the best of the others; None where nobody was asked."""
    if others is None:
        return None
    return max((iou(box.corners, other) for other in others), default=0.0)
