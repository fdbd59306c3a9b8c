"""`calibrate`: maps from evidence to the chance of being right, fitted, told, and stored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from catalog.calibration.fit import calibration_of, too_few
from catalog.calibration.judged import Judged, judge
from catalog.calibration.truth import Truth, read_truth
from kosmograph.control import open_database
from kosmograph.files import require_place, written_whole
from kosmograph.output import say, say_json, say_table, warn
from schemas.calibration import Calibration, calibrations_json
from schemas.database import Database
from schemas.errors import SetupError, UsageError
from schemas.ledger.calibrations import put_calibrations
from schemas.settings import load_settings

NOTHING_FITTED = 1
COLUMNS = (
    *("model", "task", "verify", "boxes", "right"),
    *("AUROC: score", "evidence", "trust", "ECE: evidence", "trust"),
)


def calibrate(truth: Path, *, job: str, plot: Path | None, save: Path | None, as_json: bool, db: str | None) -> int:
    """Fit, store and say; the exit code."""
    _require_places(plot, save)
    known = read_truth(truth)
    with _progress() as told:
        with open_database(db) as reader:
            judged = judge(reader, known, job, told)
        told("fitting")
        enough = sorted((identity, boxes) for identity, boxes in judged.boxes.items() if not too_few(boxes))
        fitted = [calibration_of(identity, boxes, known.sha256) for identity, boxes in enough]
    if fitted:
        _write(fitted, plot, save)
        with closing(Database(load_settings(db=db).db)) as database:
            put_calibrations(database, fitted)
    if as_json:
        say_json(_document(fitted, judged, known))
    else:
        _say(fitted, judged, known)
    if fitted:
        return 0
    warn("no map was fitted, and nothing has changed")
    return NOTHING_FITTED


def _require_places(plot: Path | None, save: Path | None) -> None:
    """Before an hour is spent on judging."""
    if plot and plot.suffix.lower() != ".svg":
        raise UsageError(f"--plot writes SVG, as in --plot reliability.svg, not {plot.name}")
    for flag, path in (("--plot", plot), ("--save", save)):
        if path:
            require_place(path, flag)


def _write(fitted: Sequence[Calibration], plot: Path | None, save: Path | None) -> None:
    if plot:
        try:
            from catalog.calibration.plot import reliability_plot
        except ImportError as error:
            raise SetupError(f"--plot needs {error.name}: pip install 'kosmograph[gallery]'") from None
        _replace(plot, reliability_plot(fitted))
    if save:
        _replace(save, calibrations_json(fitted))


def _replace(path: Path, text: str) -> None:
    try:
        with written_whole(path) as file:
            file.write(text)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; nothing was stored") from None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Takes what is being done, and shows it on a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking for the images of the truth", total=None)
        yield lambda what: progress.update(task, description=what)


def _say(fitted: Sequence[Calibration], judged: Judged, truth: Truth) -> None:
    say(f"{judged.images:,} of the truth's {len(truth.images):,} images are annotated here")
    if not judged.images:
        say(f"  an image is found where its path ends as the truth has it: {'/'.join(truth.images[0].parts)}")
    for why, count in judged.left_out.items():
        if count:
            say(f"  left out: {count:,} {why}")
    for identity, boxes in sorted(judged.boxes.items()):
        if why := too_few(boxes):
            named = ", ".join(filter(None, (identity.model, identity.task, identity.verify)))
            say(f"  no map for {named}: {len(boxes.right):,} boxes, {sum(boxes.right):,} right; {why}")
    if fitted:
        say_table(COLUMNS, [_row(one) for one in fitted])
        folds = fitted[0].report.folds
        say(f"Trust is judged by {folds} maps, each fitted without the images that it is held against. ECE is that of")
        say("15 bins with as many boxes each. The maps that hold from now on were fitted on all of them.")


def _row(one: Calibration) -> list[Any]:
    report = one.report
    figures = (
        *(report.score_auroc, report.evidence_auroc, report.trust_auroc),
        *(report.evidence_ece, report.trust_ece),
    )
    told = ["" if figure is None else f"{figure:.3f}" for figure in figures]
    return [one.model, one.task, one.verify or "no", report.boxes, report.right, *told]


def _document(fitted: Sequence[Calibration], judged: Judged, truth: Truth) -> dict[str, Any]:
    without = [
        {**identity._asdict(), "boxes": len(boxes.right), "right": sum(boxes.right), "why": why}
        for identity, boxes in sorted(judged.boxes.items())
        if (why := too_few(boxes))
    ]
    return {
        "truth": truth.sha256,
        "images": len(truth.images),
        "annotated": judged.images,
        "left_out": {why: count for why, count in judged.left_out.items() if count},
        "calibrations": [{**one.identity._asdict(), **one.report.model_dump()} for one in fitted],
        "without": without,
    }
