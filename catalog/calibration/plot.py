"""Reliability as an SVG picture: of boxes with about one trust, how many are right, for each map."""

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.report.plots import BOTTOM, LEFT, RIGHT, WIDTH, Tick
from catalog.report.words import number, share
from catalog.templates import templates_of
from schemas.calibration import Calibration
from schemas.uris import printable

SIDE = WIDTH - LEFT - RIGHT
TOP = 74
"""Of the plot within its panel: the panel's title, figures and legend stand over it."""
HEIGHT, MOST_ACROSS = TOP + SIDE + BOTTOM, 2


@dataclass(frozen=True, slots=True)
class Panel:
    """A map's plot, at (x, y) in the picture; points are (x, y, what they stand for) within it."""

    x: int
    y: int
    title: str
    figures: str
    evidence: Sequence[tuple[float, float, str]]
    trust: Sequence[tuple[float, float, str]]


def reliability_plot(calibrations: Sequence[Calibration]) -> str:
    """The SVG, a panel for each map; it needs no network and no other file."""
    templates = templates_of("catalog.calibration")
    panels = [_panel(place, one) for place, one in enumerate(calibrations)]
    across = min(len(panels), MOST_ACROSS)
    down = -(-len(panels) // MOST_ACROSS)
    return templates.get_template("reliability.svg.j2").render(
        panels=panels,
        width=across * WIDTH,
        height=down * HEIGHT,
        left=LEFT,
        right=LEFT + SIDE,
        top=TOP,
        bottom=TOP + SIDE,
        across=[Tick(LEFT + SIDE * part / 5, f"{part / 5:.1f}") for part in range(6)],
        up=[Tick(TOP + SIDE - SIDE * part / 5, f"{part / 5:.1f}") for part in range(6)],
    )


def _panel(place: int, one: Calibration) -> Panel:
    report = one.report
    boxes = f"{number(report.boxes)} boxes, {share(report.right, report.boxes)} right"
    errors = f"ECE {report.evidence_ece:.3f} before, {report.trust_ece:.3f} after"
    return Panel(
        place % MOST_ACROSS * WIDTH,
        place // MOST_ACROSS * HEIGHT,
        printable(", ".join(filter(None, (one.model, one.task, one.verify)))),
        f"{boxes}; {errors}",
        [_point(*one) for one in report.evidence_reliability],
        [_point(*one) for one in report.trust_reliability],
    )


def _point(value: float, right: float, boxes: int) -> tuple[float, float, str]:
    x, y = round(LEFT + SIDE * value, 2), round(TOP + SIDE * (1 - right), 2)
    return x, y, f"{value:.3f}: {100 * right:.1f} % of {number(boxes)} boxes right"
