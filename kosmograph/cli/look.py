"""`show`, `find` and `sql`: what is in the database."""

from pathlib import Path
from typing import Annotated

import typer

from kosmograph.cli.asking import Asked, searching
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


@searching
def find(
    asked: Asked,
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help='Words of the caption; "in order", -not, begin*.')] = "",
    job: Annotated[str, typer.Option("--job", metavar="JOB", help="Only what this job shows.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="This many images at most.")] = 50,
    after: Annotated[str, typer.Option("--after", metavar="CURSOR", help="Go on where the last answer ended.")] = "",
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE.png", help="Draw the pictures with their boxes.")
    ] = None,
    allow_http: AllowHttp = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Find images by what is said of them, and by what lies where in them.

    All that is given must be so. Scores, trust, areas, places and relations are those of boxes of the first --phrase.

    Example: kosmograph find --phrase dog --left-of person --min-score 0.6 --sheet dogs.png
    """
    from catalog.search import Search
    from kosmograph.find import find as run

    search = Search(text=text, job=job, **asked)
    code = run(search, limit=limit, after=after, sheet=sheet, as_json=as_json, allow_http=allow_http, db=db)
    raise typer.Exit(code)


def sql(
    query: Annotated[
        str,
        typer.Argument(
            metavar="SELECT...",
            help="One statement; views: captions, groundings, failures, progress, relations, cooccurrences.",
        ),
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
    explain: Annotated[
        bool, typer.Option("--explain", help="How the database would find the answer, instead of the answer.")
    ] = False,
    db: Db = None,
) -> None:
    """Ask the database. Read-only. docs/how-to/sql.md has questions to begin with.

    Example: kosmograph sql "SELECT phrase_norm, COUNT(*) FROM groundings GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
    """
    from kosmograph.ask import ask

    raise typer.Exit(ask(query, output, db, timeout_s=timeout, most_rows=limit, explain=explain))


COMMANDS = (show, find, sql)
