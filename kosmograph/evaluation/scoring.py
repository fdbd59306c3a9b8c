"""From answers to figures: which boxes count, when they are right, and how often they are."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kosmograph.evaluation.questions import ALL, Question
from schemas.grounding import Corners, iou, parse

RIGHT = 0.5
"""The IoU from which on a box is right."""
EVERY = None
"""As many boxes as there are."""
ABSENT = "absent_unanswered"

_ASKED = re.compile(r"<phrase>(.*?)</phrase>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Score:
    """How often the answers of a group were right, of `n`: 0 to 1, and what the paper has for it where it has."""

    group: str
    measure: str
    n: int
    score: float
    paper: float | None


def boxes_of(raw_text: str) -> list[Corners]:
    """The boxes of the phrase that the prompt asked for, in the order of the answer.

    That is the text's first phrase, and it counts wherever it comes again; boxes of other phrases do not. It is taken
    from the text and not from the data set, whose characters the tokenizer may fold (½ is 1/2) or not know.
    """
    asked = _ASKED.search(raw_text)
    words = asked[1].strip() if asked else None
    return [box.corners for entity in parse(raw_text).entities if entity.phrase == words for box in entity.boxes]


def is_right(question: Question, boxes: Sequence[Corners], first: int | None = 1) -> bool:
    """Whether one of the first boxes lies on one of the true ones; where there is none, whether none was drawn."""
    if not question.truth:
        return not boxes
    return any(iou(box, true) >= RIGHT for box in boxes[:first] for true in question.truth)


class Tally:
    """Counts right answers, by group and measure: a measure says how many of the first boxes it looks at."""

    def __init__(self, measures: Mapping[str, int | None]) -> None:
        self._measures = measures
        self._right: Counter[tuple[str, str]] = Counter()
        self._asked: Counter[tuple[str, str]] = Counter()

    def add(self, question: Question, boxes: Sequence[Corners]) -> None:
        """One answer more."""
        for measure, first in self._measures.items() if question.truth else [(ABSENT, EVERY)]:
            right = is_right(question, boxes, first)
            for group in question.groups:
                self._asked[group, measure] += 1
                self._right[group, measure] += right

    def scores(self, published: Mapping[tuple[str, str], float]) -> list[Score]:
        """By group, ALL first, beside what was published of it."""
        order = [*self._measures, ABSENT]
        keys = sorted(self._asked, key=lambda key: (key[0] != ALL, key[0], order.index(key[1])))
        return [
            Score(group, measure, n, self._right[group, measure] / n, published.get((group, measure)))
            for group, measure in keys
            for n in [self._asked[group, measure]]
        ]
