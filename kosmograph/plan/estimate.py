"""From what a trial has shown to what the whole would take: arithmetic alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import linear_regression

from kosmograph.plan.intervals import Figure, share_of
from kosmograph.plan.meter import Shares, seconds_a_generation, shares, steady
from kosmograph.plan.trial import Trial

BUSY = 0.8
"""A part that is at work for so much of the time is what the others wait for."""
LEAST_SPAN = 128
"""Images between the first and the last size of the database from which its growth is told."""


@dataclass(frozen=True)
class Asked:
    """What the user wants to know it for."""

    images: int
    workers: int
    price: float | None = None
    """Of an hour of one worker, in whatever currency."""
    seconds_left: float | None = None
    """Until the deadline."""


@dataclass(frozen=True)
class Failing:
    """A code, how many of the sample's images failed with it, and how many of all may."""

    code: str
    seen: int
    images: Figure
    message: str


@dataclass(frozen=True)
class Estimate:
    """What it takes. Times are seconds."""

    images: int
    reused: Figure | None
    """Images that are annotated already; None where that is not known."""
    seconds_an_image: Figure
    rough: bool
    """Whether the sample was too short for a steady rate: then it is from the first image to the last, start, end."""
    startup_s: float
    """To start and to end, once."""
    time_s: Figure
    worker_hours: Figure
    cost: Figure | None
    bytes_an_image: float | None
    """In the database; None where so few images do not show."""
    failed: Figure
    """Images, with whatever code."""
    failures: Sequence[Failing]
    shares: Shares
    limit: str
    """The part that the others wait for: fetch, decode, engine or write; "" where none is busy."""
    workers_needed: int | None
    """For the deadline: None where there is none, or no number of workers keeps it."""


def estimate(trial: Trial, asked: Asked, reused: Figure | None = None) -> Estimate:
    """The whole from the sample. `reused` is the share of images that the user's database has.

    Time is the start-up and the images that are left, shared by the workers, each of which is as fast as the one that
    was tried. The trial must have settled an image.
    """
    an_image, rough = _seconds_an_image(trial)
    startup_s = max(0.0, trial.wall_s - trial.settled * an_image.value)
    known = reused.times(asked.images) if reused else None
    to_do = Figure(*(asked.images - end for end in (known.value, known.high, known.low))) if known else None
    work = _product(an_image, to_do or Figure(asked.images, asked.images, asked.images))
    time_s = work.times(1 / asked.workers).plus(startup_s)
    hours = time_s.times(asked.workers / 3600)
    parts = _shares(trial)
    return Estimate(
        images=asked.images,
        reused=known,
        seconds_an_image=an_image,
        rough=rough,
        startup_s=startup_s,
        time_s=time_s,
        worker_hours=hours,
        cost=hours.times(asked.price) if asked.price is not None else None,
        bytes_an_image=growth_of(trial.sizes),
        failed=share_of(sum(trial.failures.values()), trial.settled, asked.images).times(asked.images),
        failures=[
            Failing(code, seen, share_of(seen, trial.settled, asked.images).times(asked.images), trial.messages[code])
            for code, seen in sorted(trial.failures.items(), key=lambda one: -one[1])
        ],
        shares=parts,
        limit=limit_of(parts),
        workers_needed=_workers_needed(work.high, startup_s, asked.seconds_left),
    )


def _seconds_an_image(trial: Trial) -> tuple[Figure, bool]:
    """With full slots; else, and then roughly, of the time in which there was work."""
    generations = trial.marks[-1].generations - trial.canaries if trial.marks else 0
    if generations > 0:
        full = steady(trial.marks, trial.canaries, trial.marks[-1].generations)
        if one := seconds_a_generation(full):
            return one.times(generations / trial.settled), False
    worked_s = trial.marks[-1].work_s if trial.marks else trial.wall_s
    rough = (worked_s or trial.wall_s) / trial.settled
    return Figure(rough, rough, rough), True


def _shares(trial: Trial) -> Shares:
    """Of the time with full slots, or of all of it."""
    marks = trial.marks
    if not marks:
        return Shares(0.0, 0.0, 0.0, 0.0)
    full = steady(marks, trial.canaries, marks[-1].generations)
    first, last = (full[0], full[-1]) if len(full) > 1 else (marks[0], marks[-1])
    return shares(first, last, trial.loaders)


def _product(one: Figure, other: Figure) -> Figure:
    return Figure(one.value * other.value, one.low * other.low, one.high * other.high)


def growth_of(sizes: Sequence[tuple[int, int]]) -> float | None:
    """Bytes that each image adds: the slope through what was measured, so that what an empty database has is not in it.

    A table grows page by page, so few images tell little: theirs are what was added, shared among them, and None where
    they fit into pages that were there.
    """
    grown = [one for one in sizes if one[0]]
    if not grown or grown[-1][1] <= sizes[0][1]:
        return None
    if len(grown) > 2 and grown[-1][0] - grown[0][0] >= LEAST_SPAN:
        images, found = zip(*grown, strict=True)
        return linear_regression(images, found).slope
    return (grown[-1][1] - sizes[0][1]) / grown[-1][0]


def limit_of(parts: Shares) -> str:
    """What the others wait for: the engine where it is always busy, else the busiest of what stands around it."""
    if parts.engine >= BUSY:
        return "engine"
    loading = parts.fetch + parts.decode
    if parts.write >= BUSY and parts.write > loading:
        return "write"
    if loading >= BUSY:
        return "fetch" if parts.fetch >= parts.decode else "decode"
    return ""


def _workers_needed(work_s: float, startup_s: float, left_s: float | None) -> int | None:
    """So many that also the slower end of the interval is in time."""
    if left_s is None or left_s <= startup_s:
        return None
    return max(1, ceil(work_s / (left_s - startup_s)))
