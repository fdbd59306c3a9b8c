"""`report`: a job on one page."""

from pathlib import Path
from typing import Annotated

import typer

from kosmograph.cli.options import AllowHttp, Db, JobName


def report(
    job: JobName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="The page; one that is there is replaced.")],
    pictures: Annotated[
        int, typer.Option("--pictures", metavar="N", min=0, max=100, help="How many pictures, spread over the job.")
    ] = 12,
    allow_http: AllowHttp = None,
    db: Db = None,
) -> None:
    """Write what a job did as one HTML page that needs no network: counts, failures, plots, pictures with boxes.

    Example: kosmograph report archive-2024 --out report.html
    """
    from kosmograph.report import write_report

    raise typer.Exit(write_report(job, out, pictures=pictures, allow_http=allow_http, db=db))


COMMANDS = (report,)
