"""`export`: what a job has annotated, as files for other tools."""

import gc
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from catalog.exports import FORMATS
from catalog.exports.base import CATEGORIES, IMAGES, LOST, Options
from catalog.exports.run import Made, Order, export
from catalog.queries import progress_of, require_job, roots_of
from catalog.reader import Reader
from catalog.search import Search
from kosmograph.control import open_database
from kosmograph.exits import DONE, SOME_FAILED
from kosmograph.find import index_new_captions
from kosmograph.output import say, say_json, warn
from kosmograph.pictures import Originals
from schemas.errors import ImageFailure, SetupError, TransientFailure, UsageError
from schemas.roots import Roots
from schemas.settings import Settings, load_settings

TRIES = 3
PAUSE_S = 1.0
"""Before the second try of a picture; twice as long before the third."""
GARBAGE_AFTER = 100_000


def export_job(
    search: Search,
    *,
    output: str,
    out: Path,
    given: dict[str, Any],
    only_found: bool,
    force: bool,
    allow_http: bool | None,
    as_json: bool,
    db: str | None,
) -> int:
    """Write the export and say what is in it; the exit code. `given` are the options of formats, None if not given."""
    if only_found and not search.marks_boxes:
        raise UsageError("--only-found needs a phrase, a relation, or a bound on boxes; without one it finds no box")
    order = Order(
        search=search, format=output, out=out, options=options_for(output, given), only_found=only_found, force=force
    )
    with open_database(db) as reader, _ended_by_sigterm():
        require_job(reader, search.job)
        if search.text and not index_new_captions(reader, db):
            raise SetupError(
                "captions of the last run are not in the index of words yet, and --text would miss them; export as a "
                "user who may write the database, or wait for the run that is writing it"
            )
        pictures = Pictures(load_settings(db=db, allow_http=allow_http), roots_of(reader, search.job))
        with _progress(reader, search) as progress, _seldom_collecting():
            made = export(reader, order, pictures.fetch, progress)
        left = progress_of(reader, search.job).records  # it may be gone since the export was whole
    if left and (state := left[0]["state"]) != "finished":
        warn(f"the job {search.job} is {state}: this is what it has annotated so far")
    _say(made, order, as_json=as_json)
    return SOME_FAILED if made.lost else DONE


def options_for(output: str, given: dict[str, Any]) -> Options:
    """The options of a format. Raises UsageError for an unknown format, and for an option that it does not have."""
    if output not in FORMATS:
        raise UsageError(f"unknown format {output!r}; formats are {', '.join(FORMATS)}")
    told = {name: value for name, value in given.items() if value is not None}
    for name in told.keys() - FORMATS[output].options:
        takers = ", ".join(one.name for one in FORMATS.values() if name in one.options)
        raise UsageError(f"{output} has no --{name.replace('_', '-')}; it is for {takers}")
    for name, known in (("categories", CATEGORIES), ("images", IMAGES)):
        if name in told and told[name] not in known:
            raise UsageError(f"--{name} is {' or '.join(known)}, not {told[name]!r}")
    return Options(**{one.name: told[one.name] for one in fields(Options) if one.name in told})


class Pictures:
    """Reads pictures as they are stored, of those that a job may read; many threads may ask."""

    def __init__(self, settings: Settings, roots: Roots | None) -> None:
        self._settings = settings
        self._roots = roots
        self._originals = Originals(settings)
        self._failed = 0

    def fetch(self, uri: str) -> bytes:
        """The bytes. Raises ImageFailure, and SetupError where so many fail in a row that it is not the pictures."""
        for tried in range(1, TRIES + 1):
            try:
                data = self._originals.fetch(uri, self._roots)
            except ImageFailure as failure:
                if isinstance(failure, TransientFailure) and tried < TRIES:
                    time.sleep(PAUSE_S * tried)
                    continue
                self._failed += 1
                if self._failed >= self._settings.breaker_images:
                    raise SetupError(
                        f"{self._failed} pictures in a row cannot be read, {uri} at last: {failure}"
                    ) from None
                raise
            self._failed = 0
            return data
        raise AssertionError("unreachable")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that no draft stays."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Garbage in circles is looked for once in so many objects: millions are made that are in none, and soon gone."""
    before = gc.get_threshold()
    gc.set_threshold(GARBAGE_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _progress(reader: Reader, search: Search) -> Iterator[Any]:
    """Takes how many images more are done, and shows it on a terminal: of how many, where nothing is filtered."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    (job,) = progress_of(reader, search.job).records
    total = job["annotated"] + job["reused"] if search == Search(job=search.job) else None
    columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    console = Console(stderr=True)
    began, done = time.monotonic(), 0
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, rate="")

        def more(count: int) -> None:
            nonlocal done
            done += count
            bar.update(task, completed=done, rate=f"{done / max(time.monotonic() - began, 0.001):,.0f} images/s")

        yield more


def _say(made: Made, order: Order, *, as_json: bool) -> None:
    left_out = {reason: count for reason, count in made.left_out.items() if count}
    if as_json:
        say_json({"out": str(order.out), "bytes": made.bytes, **made.counts, "left_out": left_out})
        return
    counts = made.counts
    say(f"{order.out}: {counts['images']} images, {counts['annotations']} captions, {counts['boxes']} boxes")
    if left_out:
        say("left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.items()))
    if made.lost:
        warn(f"{made.lost} pictures could not be had; {order.out / LOST} names them")
