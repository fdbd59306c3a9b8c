"""How far to believe a box: what is implausible about it, where its edges may lie, and all evidence in one number."""

import math
from collections import Counter
from collections.abc import Sequence

from schemas.grounding import GRID, Box, Entity, Grounding
from schemas.results import Belief, EntityScores
from worker.generation import Generation, Glance, Vocabulary
from worker.verification import Checked, agreement

FULL_FRAME = 0.93
"""The area from which a box says no more than that the thing is in the picture: the grid's own largest is 0.938."""
MANY_ALIKE = 12
"""Boxes of one size in one annotation: a row of them is a habit of the model more often than a row of things."""
DOUBTS = {"inverted": 0.0, "full_frame": 0.5, "repeated": 0.5, "many_alike": 0.3}
"""What each makes of the plausibility."""

FLOORS = {"score": 0.01, "presence": 0.01, "agreement": 0.4, "mirror_agreement": 0.4, "naming": 0.01}
"""What each part counts as at least. They weigh alike, and none decides alone: on drawings, boxes that did not overlap
at all were hardly more often wrong than those that overlapped a little (benchmarks/RESULTS.md)."""

SIGMA = 1 / math.sqrt(2 * math.pi * math.e)
"""A normal distribution of entropy H (in nats) has the standard deviation SIGMA · exp(H)."""


def beliefs(
    grounding: Grounding,
    scores: Sequence[EntityScores],
    generation: Generation,
    vocabulary: Vocabulary,
    found: Checked,
) -> list[list[Belief]]:
    """For each box of each entity what there is to believe it or not."""
    glances = _location_glances(generation, vocabulary)
    boxes = [box for entity in grounding.entities for box in entity.boxes]
    places = Counter((box.first, box.second) for box in boxes)
    sizes = Counter(_size(box) for box in boxes)
    return [
        [
            _belief(entity, box, score, glances, found, _doubts(box, places, sizes))
            for box, score in zip(entity.boxes, scored.boxes, strict=True)
        ]
        for entity, scored in zip(grounding.entities, scores, strict=True)
    ]


def evidence(parts: dict[str, float | None], plausibility: float) -> float | None:
    """In [0, 1]: the geometric mean of the parts there are, times the plausibility; None where there are none."""
    there = [max(part, FLOORS[name]) for name, part in parts.items() if part is not None]
    return plausibility * math.exp(math.fsum(map(math.log, there)) / len(there)) if there else None


def _belief(
    entity: Entity,
    box: Box,
    score: float | None,
    glances: Sequence[Glance],
    found: Checked,
    doubts: list[str],
) -> Belief:
    if score is None:  # the prompt gave it, or a corner of it: there is nothing to believe
        return Belief()
    plausibility = math.prod(DOUBTS[doubt] for doubt in doubts)
    checks = {
        "presence": found.presence.get(entity.phrase),
        "agreement": agreement(box, found.alone.get(entity.phrase)),
        "mirror_agreement": agreement(box, found.mirrored.get(entity.phrase)),
        "naming": found.naming.get(box),
    }
    known = evidence({"score": score, **checks}, plausibility)
    named = ",".join(doubts) or None
    return Belief(**_edges(box, glances), **checks, plausibility=plausibility, doubts=named, evidence=known)


def _edges(box: Box, glances: Sequence[Glance]) -> dict[str, float]:
    """Where each edge is expected, and how surely; nothing without the model's distribution.

    As far off the chosen edge as the mean is off the chosen cell: within one row, which a box has whole, as well.
    """
    at = len(glances) + box.token
    if at < 0:
        return {}
    edges: dict[str, float] = {}
    chosen = ((box.x1, box.y1, box.first), (box.x2, box.y2, box.second))
    for number, (corner, (x, y, cell)) in enumerate(zip(glances[at : at + 2], chosen, strict=True), start=1):
        row, column = divmod(cell, GRID)
        edges[f"expected_x{number}"] = x + (corner.column - column) / GRID
        edges[f"expected_y{number}"] = y + (corner.row - row) / GRID
        edges[f"sigma_x{number}"] = SIGMA * math.exp(corner.column_entropy) / GRID
        edges[f"sigma_y{number}"] = SIGMA * math.exp(corner.row_entropy) / GRID
    # a cell that --constrained has forced may be so far from all the model thought of that it has no mean around it
    return {name: value for name, value in edges.items() if math.isfinite(value)}


def _location_glances(generation: Generation, vocabulary: Vocabulary) -> list[Glance]:
    """Those of the location tokens, which `Box.token` counts."""
    if not len(generation.glances):
        return []
    located = [place for place, id_ in enumerate(generation.token_ids) if 0 <= id_ - vocabulary.first_patch < GRID**2]
    return [Glance(*values) for values in generation.glances[located].tolist()]


def _doubts(box: Box, places: Counter[tuple[int, int]], sizes: Counter[tuple[int, int]]) -> list[str]:
    found = {
        "inverted": not box.valid,
        "full_frame": box.area >= FULL_FRAME,
        "repeated": places[box.first, box.second] > 1,
        "many_alike": sizes[_size(box)] >= MANY_ALIKE,
    }
    return [doubt for doubt, holds in found.items() if holds]


def _size(box: Box) -> tuple[int, int]:
    """In cells."""
    (row1, column1), (row2, column2) = divmod(box.first, GRID), divmod(box.second, GRID)
    return column2 - column1, row2 - row1
