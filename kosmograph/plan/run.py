"""`plan`: list, draw, try, tell."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from kosmograph.exits import DONE, INTERRUPTED
from kosmograph.output import say, say_json, warn
from kosmograph.plan.deadline import deadline_of
from kosmograph.plan.estimate import Asked, estimate
from kosmograph.plan.intervals import share_of
from kosmograph.plan.sample import NAMES_WHERE_COUNTED, Sample, draw
from kosmograph.plan.telling import Tell, telling
from kosmograph.plan.trial import Trial, try_out
from kosmograph.plan.words import Plan, document_of, lines_of
from kosmograph.requests import Request, find_sources, recipes_for, roots_of
from kosmograph.workers import devices_for
from producer.sources import Source
from schemas.database import Database
from schemas.errors import SetupError
from schemas.items import Item
from schemas.ledger.known import count_annotated
from schemas.logs import configure_logs
from schemas.migrations import require_current
from schemas.recipes import Recipe
from schemas.settings import Settings
from schemas.signals import interruptible

MOST_SAMPLED = 10_000
"""What a fast worker may do until its rate is known."""


@dataclass(frozen=True)
class Order:
    """What is to be told."""

    sample: int | None = None
    workers: int | None = None
    price: float | None = None
    deadline: str | None = None
    images: int | None = None
    as_json: bool = False


def plan(request: Request, order: Order, settings: Settings) -> int:
    """Say what all images of the sources would take; the exit code."""
    began = time.monotonic()
    configure_logs(settings.model_copy(update={"log_level": "warning"}))
    deadline = deadline_of(order.deadline, datetime.now()) if order.deadline else None
    recipes = recipes_for(request, settings.device)
    sources = find_sources(request, settings)
    prepared_s = time.monotonic() - began
    with interruptible() as interrupted, telling() as tell:
        sample = _counted(sources, order, interrupted, tell)
        if interrupted.is_set():
            warn("interrupted; where you know how many images there are, --images TOTAL spares the counting")
            return INTERRUPTED
        with closing(Database(settings.db)) as database:
            there, why_not = known(sample.items, recipes, database)
        roots = roots_of(request, sources)
        trial = try_out(sample.items, request, recipes, roots, settings, order.sample, interrupted, tell)
    if trial.interrupted:
        warn("interrupted; of the trial nothing is left")
        return INTERRUPTED
    require_some(trial)
    trial.wall_s += prepared_s
    asked = _asked(order, sample, deadline, settings)
    found = estimate(trial, asked, None if there is None else share_of(there, len(sample.items), asked.images))
    _say(Plan(asked, found, trial, sample, sample.whole, recipes[0].model, deadline, why_not), order.as_json)
    return DONE


def _counted(sources: Sequence[Source], order: Order, stop: Event, tell: Tell) -> Sample:
    """A sample of the whole listing, or of its beginning where the user says how long it is."""
    size = max(MOST_SAMPLED, order.sample or 0)
    most = None if order.images is None else min(order.images, max(NAMES_WHERE_COUNTED, size))
    return draw(
        sources,
        size,
        most=most,
        stopped=stop.is_set,
        progress=lambda listed: tell(f"counting: {listed:,} images"),
    )


def _asked(order: Order, sample: Sample, deadline: datetime | None, settings: Settings) -> Asked:
    return Asked(
        images=sample.listed if sample.whole else order.images or sample.listed,
        workers=order.workers or len(devices_for(settings)),
        price=order.price,
        seconds_left=deadline.timestamp() - time.time() if deadline else None,
    )


def _say(told: Plan, as_json: bool) -> None:
    if as_json:
        say_json(document_of(told))
        return
    for line in lines_of(told):
        say(line)


def known(items: Sequence[Item], recipes: Sequence[Recipe], database: Database) -> tuple[int | None, str]:
    """How many of these the user's database has annotated; or None, and why that is not known."""
    if database.path is not None and not database.path.exists():
        return 0, ""
    try:
        require_current(database)
        with database.read() as connection:
            return count_annotated(connection, items, recipes), ""
    except SetupError as error:
        return None, str(error)


def require_some(trial: Trial) -> None:
    """Raises SetupError where the sample says nothing of a rate."""
    failed = sum(trial.failures.values())
    if not trial.settled:
        raise SetupError(f"no image was done within {trial.wall_s:.0f} s; --sample N takes so many, however long it is")
    if failed >= trial.settled:
        code = max(trial.failures, key=lambda code: trial.failures[code])
        raise SetupError(f"all {failed} images of the sample failed, most with {code}: {trial.messages[code]}")
