"""Figures as plots: where each bar, tick and cell stands in an SVG, with the same numbers as a table beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from catalog.report.facts import Rate
from catalog.report.figures import AREAS, SCORE_BINS, WIDTHS_S
from catalog.report.words import compact, number, plural, share

WIDTH, HEIGHT = 440, 236
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 12, 48
"""Of the plot within its picture, in the picture's units: some pixels, on a phone a little less."""
MOST_BARS = 26
CELL_SIZE = 10
HOUR_S, DAY_S = 3600, 86400


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle. `kind` is its colour's class, `told` what it stands for."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    told: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis, in the picture's units."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot with bars, its axes, and its numbers as rows of a table."""

    id: str
    title: str
    x_label: str
    y_label: str
    summary: str
    bars: Sequence[Bar]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Cells with how strong their colour is, from 0 to 1, and what the strongest stands for."""

    id: str
    title: str
    summary: str
    most: int
    cells: Sequence[tuple[int, int, float, str]] = field(default=())


@dataclass(frozen=True, slots=True)
class Bin:
    """One step along x: what it is called, and its values by kind."""

    told: str
    values: Sequence[float]


def rate_chart(rate: Rate) -> Chart:
    """Outcomes a second over time."""
    kinds = ("annotated", "reused", "failed")
    used = [place for place, kind in enumerate(kinds) if any(counts[place] for counts in rate.bins.values())]
    first, last = min(rate.bins, default=0), max(rate.bins, default=0)
    bins, rows = [], []
    for step in range(first, last + 1):
        counts = rate.bins.get(step, (0, 0, 0))
        began = _clock(rate.origin + step * rate.width_s, rate.width_s, with_date=True)
        bins.append(Bin(began, [counts[place] / rate.width_s for place in used]))
        rows.append([began, *(number(counts[place]) for place in used)])
    length = len(bins) * rate.width_s
    fitting = (span // rate.width_s for span in WIDTHS_S if span % rate.width_s == 0 and length / span <= 6)
    every = next(fitting, len(bins))
    starts = [rate.origin + (first + step) * rate.width_s for step in range(len(bins))]
    offset = int(-(starts[0] // rate.width_s) % every)
    ticks = [
        (step + 0.0, _clock(starts[step], rate.width_s, with_date=starts[-1] - starts[0] > 2 * DAY_S))
        for step in range(offset, len(bins), every)
    ]
    most = max((sum(one.values) for one in bins), default=0)
    busy = sum(map(sum, rate.bins.values()))
    told = f"{plural(busy, 'outcome')} in {plural(len(bins), 'step')} of {_span(rate.width_s)}; the busiest has "
    told += f"{compact(most)} a second."
    if len(bins) == 1:  # one bar would say nothing
        told = f"All {plural(busy, 'outcome')} within {_span(rate.width_s)}." if busy else "No outcome."
        bins, rows = [], []
    return _chart(
        "rate",
        "Rate over time",
        f"time (UTC), in steps of {_span(rate.width_s)}",
        "outcomes a second",
        told,
        bins,
        [kinds[place] for place in used],
        ticks,
        ["from", *(kinds[place] for place in used)],
        rows,
    )


def lengths_chart(id_: str, title: str, unit: str, counts: Mapping[int, int]) -> Chart:
    """How many captions are how long."""
    low, high = min(counts, default=0), max(counts, default=0)
    width = _nice_width((high - low + 1) / MOST_BARS)
    start = low // width * width
    bins = []
    for begin in range(start, high + 1, width):
        inside = sum(counts.get(length, 0) for length in range(begin, begin + width))
        bins.append(Bin(str(begin) if width == 1 else f"{begin}–{begin + width - 1}", [inside]))
    every = _step_of_ticks(len(bins))
    centre = 0.5 if width == 1 else 0.0
    offset = -(start // width) % every
    ticks = [(step + centre, str(start + step * width)) for step in range(offset, len(bins), every)]
    steps = "" if width == 1 else f", in steps of {width}"
    told = f"{plural(sum(counts.values()), 'caption')}: {spread(counts)}." if counts else "no caption."
    columns, rows = [unit, "captions"], _rows(bins)
    return _chart(id_, title, f"{unit} in a caption{steps}", "captions", told, bins, ["plain"], ticks, columns, rows)


def scores_chart(id_: str, title: str, unit: str, counts: Sequence[int], note: str, *, of: str = "score") -> Chart:
    """How many boxes or phrases have which score, or which trust."""
    bins = [Bin(f"{place / SCORE_BINS:.2f}–{(place + 1) / SCORE_BINS:.2f}", [n]) for place, n in enumerate(counts)]
    ticks = [(place * SCORE_BINS / 5, f"{place / 5:.1f}") for place in range(6)]
    counted = plural(sum(counts), "score") if of == "score" else plural(sum(counts), "box", unit)
    told = f"{counted}{note}."
    columns = [of, unit]
    return _chart(id_, title, f"{of}, in steps of 0.05", unit, told, bins, ["plain"], ticks, columns, _rows(bins))


def areas_chart(counts: Sequence[int]) -> Chart:
    """How many boxes are how large."""
    ends = [f"{100 * end:g}" for end in AREAS]
    names = [f"under {ends[0]} %", *(f"{a}–{b} %" for a, b in pairwise(ends)), f"{ends[-1]}–100 %"]
    bins = [Bin(name, [count]) for name, count in zip(names, counts, strict=True)]
    ticks = [(place + 1.0, end) for place, end in enumerate(ends)]
    told = f"{plural(sum(counts), 'box', 'boxes')} by the share of the picture that they cover."
    x_label = "share of the picture, in %"
    return _chart(
        "areas", "Size of boxes", x_label, "boxes", told, bins, ["plain"], ticks, ["share", "boxes"], _rows(bins)
    )


def heat_map(heat: Sequence[Sequence[int]], boxes: int) -> HeatMap:
    """Where boxes fall."""
    most = max(map(max, heat))
    if not most:
        return HeatMap("heat", "Where boxes fall", "No box.", 0)
    at_y, at_x = next((y, x) for y, row in enumerate(heat) for x, n in enumerate(row) if n == most)
    told = (
        f"Of {plural(boxes, 'box', 'boxes')}, {number(most)} ({share(most, boxes)}) lie on the cell in "
        f"row {at_y + 1}, column {at_x + 1}: none has more."
    )
    cells = [
        (x * CELL_SIZE, y * CELL_SIZE, round(n / most, 3), f"row {y + 1}, column {x + 1}: {number(n)}")
        for y, row in enumerate(heat)
        for x, n in enumerate(row)
        if n
    ]
    return HeatMap("heat", "Where boxes fall", told, most, cells)


def spread(counts: Mapping[int, int]) -> str:
    """`median 12, mean 13.4, longest 40` of what is counted by its length."""
    total, seen, median = sum(counts.values()), 0, 0
    for length in sorted(counts):
        seen += counts[length]
        if seen * 2 >= total:
            median = length
            break
    mean = sum(length * count for length, count in counts.items()) / total
    return f"median {median}, mean {mean:.1f}, longest {max(counts)}"


def _chart(
    id_: str,
    title: str,
    x_label: str,
    y_label: str,
    summary: str,
    bins: Sequence[Bin],
    kinds: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> Chart:
    """Bars on top of one another, in a picture of WIDTH by HEIGHT."""
    heights = _nice_ticks(max((sum(one.values) for one in bins), default=0))
    across, up = (WIDTH - LEFT - RIGHT) / max(len(bins), 1), (HEIGHT - TOP - BOTTOM) / heights[-1]
    gap = min(2.0, across * 0.15)
    bars = []
    for place, one in enumerate(bins):
        bottom = HEIGHT - BOTTOM + 0.0
        for kind, value in zip(kinds, one.values, strict=True):
            if value:
                named = f"{one.told}: {compact(value)}" + (f" {kind}" if len(kinds) > 1 else "")
                x, height = LEFT + place * across + gap / 2, max(value * up, 0.5)
                bars.append(
                    Bar(round(x, 2), round(bottom - height, 2), round(across - gap, 2), round(height, 2), kind, named)
                )
                bottom -= height
    x_ticks = [Tick(round(LEFT + at * across, 2), label) for at, label in ticks]
    y_ticks = [Tick(round(HEIGHT - BOTTOM - height * up, 2), compact(height, heights[-1])) for height in heights]
    legend = [(kind, kind) for kind in kinds] if len(kinds) > 1 else []
    return Chart(id_, title, x_label, y_label, summary, bars, x_ticks, y_ticks, columns, rows, legend)


def _rows(bins: Sequence[Bin]) -> list[list[str]]:
    return [[one.told, number(int(one.values[0]))] for one in bins if one.values[0]]


def _nice_ticks(most: float) -> list[float]:
    """From 0 in at most five round steps to what is over `most`."""
    if most <= 0:
        return [0, 1]
    scale = 10.0 ** math.floor(math.log10(most / 4))
    step = next(scale * part for part in (1, 2, 5, 10) if scale * part * 4 >= most * 0.999)
    return [step * count for count in range(math.ceil(most / step * 0.999) + 1)]


def _nice_width(least: float) -> int:
    """A round width of that or more."""
    scale = 1
    while True:
        for part in (1, 2, 5):
            if part * scale >= least:
                return part * scale
        scale *= 10


def _step_of_ticks(bins: int) -> int:
    """Every how many bins one is named, so that there are six or fewer."""
    return next(step for step in (1, 2, 5, 10, 15, 20, 30, 60, bins) if bins / step <= 6)


def _clock(at: float, width_s: int, *, with_date: bool) -> str:
    form = "%Y-%m-%d" if width_s >= DAY_S else "%H:%M:%S" if width_s < 60 else "%H:%M"
    if with_date and width_s < DAY_S:
        form = f"%Y-%m-%d {form}" if width_s < HOUR_S else "%m-%d %H:%M"
    return datetime.fromtimestamp(at, UTC).strftime(form)


def _span(seconds: int) -> str:
    for size, unit in ((DAY_S, "day"), (HOUR_S, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            return plural(seconds // size, unit)
    return f"{seconds} s"
