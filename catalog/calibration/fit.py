"""Calibrations for boxes that are judged, each with a report that is honest about new images."""

import math
from collections.abc import Sequence

from catalog.calibration.isotonic import Curve, curve_of, value_at
from catalog.calibration.judged import FOLDS, Boxes
from catalog.calibration.measures import auroc, calibration_error, grouped, reliability
from schemas.calibration import Calibration, Identity, Report

LEAST_BOXES, LEAST_OF_EACH = 100, 10
"""Boxes that a map is fitted on, and right and wrong ones among them."""


def too_few(boxes: Boxes) -> str:
    """Why there is no map for these boxes; "" where there is one."""
    right, count = sum(boxes.right), len(boxes.right)
    if count >= LEAST_BOXES and min(right, count - right) >= LEAST_OF_EACH:
        return ""
    return f"a map needs {LEAST_BOXES} boxes, {LEAST_OF_EACH} right and {LEAST_OF_EACH} wrong ones"


def calibration_of(identity: Identity, boxes: Boxes, truth: str) -> Calibration:
    """The map fitted on all of the boxes, with the report of maps that have not seen the images they are held against.

    `truth` is the sha256 of the file that says which are right.
    """
    order = sorted(range(len(boxes.right)), key=boxes.evidence.__getitem__)
    points = curve_of([(boxes.evidence[at], boxes.right[at]) for at in order])
    report = report_on(boxes, crossed(boxes, order))
    return Calibration(**identity._asdict(), truth=truth, report=report, points=tuple(points))


def crossed(boxes: Boxes, order: Sequence[int]) -> list[float]:
    """The trust in each box by the map of the other folds; `order` is that of the evidence."""
    curves: list[Curve | None] = []
    for fold in range(FOLDS):
        others = [(boxes.evidence[at], boxes.right[at]) for at in order if boxes.fold[at] != fold]
        curves.append(curve_of(others) if others else None)
    return [
        value_at(curve, evidence) if (curve := curves[fold]) else evidence
        for evidence, fold in zip(boxes.evidence, boxes.fold, strict=True)
    ]


def report_on(boxes: Boxes, trust: Sequence[float]) -> Report:
    """How well score, evidence and trust tell right from wrong, and how far the last two are chances."""
    scored = [at for at, score in enumerate(boxes.score) if not math.isnan(score)]
    scores = grouped((boxes.score[at] for at in scored), (boxes.right[at] for at in scored))
    before, after = grouped(boxes.evidence, boxes.right), grouped(trust, boxes.right)
    bins = reliability(before), reliability(after)
    return Report(
        boxes=len(boxes.right),
        right=sum(boxes.right),
        scored=len(scored),
        folds=FOLDS,
        score_auroc=auroc(scores),
        evidence_auroc=auroc(before),
        trust_auroc=auroc(after),
        evidence_ece=calibration_error(bins[0]),
        trust_ece=calibration_error(bins[1]),
        evidence_reliability=tuple(bins[0]),
        trust_reliability=tuple(bins[1]),
    )
