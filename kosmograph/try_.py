"""`try`: any prompts on a few pictures, in this process."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.calibration.isotonic import Curve, value_at
from catalog.records import BELIEF, Box, Entity
from kosmograph.exits import DONE, SOME_FAILED
from kosmograph.output import believed, say, say_json
from kosmograph.pictures import Originals, save_picture
from kosmograph.requests import Request, calibrations_of, recipes_for
from schemas import grounding
from schemas.errors import ImageFailure, UsageError
from schemas.grounding import phrase_norm
from schemas.heads import head_of
from schemas.results import Annotation, Belief
from schemas.settings import Settings
from schemas.uris import absolute_uri, printable


@dataclass(frozen=True)
class Answer:
    """What the model said of one picture to one prompt. `curve` is what trust is by the evidence; none: the same."""

    uri: str
    task: str
    prompt: str
    annotation: Annotation
    curve: Curve

    @property
    def entities(self) -> list[Entity]:
        """The phrases and their boxes, as the catalog would have them."""
        entities, said = [], self.annotation
        every = zip(said.grounding.entities, said.scores, said.beliefs, strict=True)
        for number, (one, scores, beliefs) in enumerate(every):
            boxes = [self._box(*about) for about in zip(one.boxes, scores.boxes, beliefs, strict=True)]
            norm = phrase_norm(one.phrase)
            about = (one.phrase, norm, head_of(norm), one.start, one.end)
            entities.append(Entity(number, *about, scores.phrase, boxes))
        return entities

    def _box(self, box: grounding.Box, score: float | None, belief: Belief) -> Box:
        known = {name: getattr(belief, name) for name in Belief._fields if name in Box._fields}
        evidence = belief.evidence
        trust = evidence if evidence is None or not self.curve else value_at(self.curve, evidence)
        return Box(*box.corners, box.area, score, box.valid, **known, trust=trust)


def try_images(request: Request, settings: Settings, *, save: Path | None, raw: bool, as_json: bool) -> int:
    """Print (or save) the answers; the exit code: 3 when a picture could not be read."""
    if columns := request.prompts.columns:
        name = next(iter(columns.values()))[0]
        raise UsageError(f"column:{name} is that of a manifest, which `annotate` and `submit` take; give `try` a text")
    if save and len(request.sources) * len(request.prompts.all()) > 1 and not save.suffix:
        raise UsageError("--save needs a file name with an extension, as in --save out.png")
    answers, failures, originals = [], 0, Originals(settings)
    for number, answer in enumerate(_answers(request, settings)):
        if isinstance(answer, ImageFailure):
            failures += 1
            print(f"kosmograph: {answer}", file=sys.stderr)  # noqa: T201
            continue
        answers.append(answer)
        if not as_json:
            _say_answer(answer, raw)
        if save:
            path = save if number == 0 else save.with_stem(f"{save.stem}-{number + 1}")
            picture = originals.decode(originals.fetch(answer.uri, None))
            save_picture(picture, answer.annotation.grounding.caption, answer.entities, settings.model, path)
            if not as_json:
                say(f"  saved {path}")
    if as_json:
        say_json([_as_json(answer) for answer in answers])
    return SOME_FAILED if failures else DONE


def _answers(request: Request, settings: Settings) -> "Iterator[Answer | ImageFailure]":
    from schemas.storage import StorageOptions
    from worker.annotation import annotation_of
    from worker.flow import request_of
    from worker.images import Limits
    from worker.loader import Loader
    from worker.revision import resolve
    from worker.service import load_engine

    recipes = recipes_for(request, settings.device)
    curves = {(one.task, one.verify): one.points for one in calibrations_of(request.model, recipes)}
    engine, runtime = load_engine(resolve(request.model, recipes[0].revision, recipes[0].dtype), settings)
    with engine, Loader(Limits.from_settings(settings), 1, StorageOptions.of(settings)) as loader:
        for name in request.sources:
            uri = absolute_uri(name, os.getcwd())
            try:
                loaded = loader.load(uri, exact=True).result()
                # all of them at once: the engine looks at the image once for those that wait together
                asked = [engine.submit(request_of(recipe, recipe.prompt, loaded.pixels)) for recipe in recipes]
                for recipe, future in zip(recipes, asked, strict=True):
                    said = annotation_of(recipe, recipe.prompt, future.result(), engine.vocabulary, runtime)
                    yield Answer(uri, recipe.task, recipe.prompt, said, curves.get((recipe.task, recipe.verify), ()))
            except ImageFailure as failure:
                yield type(failure)(failure.code, f"{printable(uri)}: {failure.message}")


def _say_answer(answer: Answer, raw: bool) -> None:
    say(f"{printable(answer.uri)}  [{printable(answer.prompt)}]")
    if raw:
        say(f"  {printable(answer.annotation.raw_text)}")
        return
    say(f"  {printable(answer.annotation.grounding.caption)}")
    for entity, box in _boxes(answer):
        corners = ", ".join(f"{value:.3f}" for value in (box.x1, box.y1, box.x2, box.y2))
        belief = believed(box.score, box.trust, box.doubts)
        say(f"    {printable(entity.phrase) or '(no phrase)'}: ({corners}){belief}")


def _boxes(answer: Answer) -> Iterator[tuple[Entity, Box]]:
    return ((entity, box) for entity in answer.entities for box in entity.boxes)


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "uri": answer.uri,
        "task": answer.task,
        "prompt": answer.prompt,
        "caption": answer.annotation.grounding.caption,
        "raw_text": answer.annotation.raw_text,
        "groundings": [
            {
                "phrase": entity.phrase,
                "box": [box.x1, box.y1, box.x2, box.y2],
                "score": box.score,
                "phrase_score": entity.score,
                "valid": box.valid,
                **{name: getattr(box, name) for name in BELIEF},
            }
            for entity, box in _boxes(answer)
        ],
    }
