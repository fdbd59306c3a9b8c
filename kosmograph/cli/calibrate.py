"""`calibrate`: from what the model says of its boxes to the chance that they are right."""

from pathlib import Path
from typing import Annotated

import typer

from kosmograph.cli.options import Db, Json


def calibrate(
    truth: Annotated[
        Path, typer.Option("--truth", metavar="BOXES.json", help="True boxes in COCO's format, for annotated images.")
    ],
    job: Annotated[str, typer.Option("--job", metavar="JOB", help="Only this job's boxes; all jobs' without.")] = "",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw how often boxes of which trust are right.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE.json", help="Write the maps too; calibration.json in a model's folder."),
    ] = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Fit trust to the truth: of boxes with a trust of 0.9, nine in ten have an IoU of 0.5 or more with a true one.

    Images are found by the end of their path, as in photos/1.jpg, and boxes by the category that their phrase names. A
    box of a category that its image does not have is wrong: so list every category that was asked for. Each model, task
    and way of verifying with 100 boxes, 10 of them right and 10 wrong, gets a map, which `trust` goes through at once
    in all jobs, old ones as well. The figures are those of images that a map has not seen.

    Example: kosmograph calibrate --truth boxes.json --job drawings --plot reliability.svg
    """
    from kosmograph.calibrate import calibrate as run

    raise typer.Exit(run(truth, job=job, plot=plot, save=save, as_json=as_json, db=db))


COMMANDS = (calibrate,)
