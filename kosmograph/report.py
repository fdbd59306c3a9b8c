"""`report`: a job on one page, written whole or not at all."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.queries import Place, places_of
from kosmograph.control import open_database
from kosmograph.files import require_place, written_whole
from kosmograph.output import db_option, say, warn
from kosmograph.pictures import Originals
from schemas.errors import SetupError
from schemas.settings import Settings, load_settings

if TYPE_CHECKING:
    from catalog.records import Record
    from catalog.report.facts import Figures
    from catalog.report.sample import Shown


def write_report(job: str, out: Path, *, pictures: int, allow_http: bool | None, db: str | None) -> int:
    """Write the report of a job; the exit code."""
    try:
        from catalog.report.page import page_of
    except ImportError as error:
        raise SetupError(f"a report needs {error.name}: pip install 'kosmograph[gallery]'") from None
    require_place(out, "--out FILE.html")
    settings = load_settings(db=db, allow_http=allow_http)
    figures, records, places = _count(job, pictures, db)
    shown = _draw(records, places, settings)
    _write(out, page_of(figures, shown, time.time(), db_option(settings)))
    say(f"saved {out}: {figures.job.images:,} images, {len(shown)} of them shown, {out.stat().st_size / 1e6:.1f} MB")
    if unread := [one for one in shown if one.trouble]:
        told = f"{unread[0].record.uri}: {unread[0].trouble}"
        warn(f"{len(unread)} of the {len(shown)} pictures cannot be read, as the page says: {told}")
    return 0


def _count(job: str, pictures: int, db: str | None) -> "tuple[Figures, list[Record], dict[int, Place]]":
    """All that comes from the database, before anything is drawn: it does not wait for slow pictures."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from catalog.report.figures import STEPS, figures_of
    from catalog.report.sample import sample_of

    columns = (TextColumn("counting: {task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with (
        open_database(db) as reader,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("", total=STEPS + 1, completed=-1)
        figures = figures_of(reader, job, lambda what: progress.update(task, description=what, advance=1))
        records = sample_of(reader, job, pictures)
        return figures, records, places_of(reader, [record.image_id for record in records])


def _draw(records: "list[Record]", places: dict[int, Place], settings: Settings) -> "list[Shown]":
    from rich.console import Console
    from rich.progress import track

    from catalog.report.sample import bytes_for_each, shown

    originals, most, console = Originals(settings), bytes_for_each(len(records)), Console(stderr=True)
    each = track(records, "drawing", console=console, transient=True, disable=not console.is_terminal)
    return [shown(record, lambda one: originals.picture(places[one.image_id]), most) for record in each]


def _write(out: Path, page: str) -> None:
    try:
        with written_whole(out) as file:
            file.write(page)
    except OSError as error:
        raise SetupError(f"the report cannot be written to {out}: {error.strerror}") from None
