"""`show` and `sql`: what has been found."""

from pathlib import Path
from typing import Annotated

import typer

from kosmograph.cli.options import AllowHttp, Db, Json


def show(
    image: Annotated[str, typer.Argument(metavar="URI|IMAGE_ID", help="As in the view `captions`; a path will do.")],
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="As this job has it.")] = None,
    save: Annotated[Path | None, typer.Option("--save", metavar="FILE.png", help="Draw boxes and phrases.")] = None,
    allow_http: AllowHttp = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Show what was found in an image: captions, phrases, boxes, scores.

    Example: kosmograph show examples/images/postcard.jpg --save picture.png
    """
    from kosmograph.show import show_image

    raise typer.Exit(show_image(image, job=job, save=save, allow_http=allow_http, as_json=as_json, db=db))


def sql(
    query: Annotated[
        str, typer.Argument(metavar="SELECT...", help="One statement; views: captions, groundings, failures, progress.")
    ],
    output: Annotated[
        str, typer.Option("--format", metavar="table|csv|json|parquet", help="parquet goes to a pipe or file.")
    ] = "table",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="What the answer may take; 0: any time.")
    ] = 60.0,
    limit: Annotated[
        int, typer.Option("--limit", metavar="ROWS", min=0, help="An answer of more rows is refused; 0: any number.")
    ] = 100_000,
    db: Db = None,
) -> None:
    """Ask the database. Read-only.

    Example: kosmograph sql "SELECT phrase_norm, COUNT(*) FROM groundings GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
    """
    from kosmograph.ask import ask

    raise typer.Exit(ask(query, output, db, timeout_s=timeout, most_rows=limit))


COMMANDS = (show, sql)
