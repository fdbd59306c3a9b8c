"""`export`: the catalog as files for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from kosmograph.cli.asking import Asked, searching
from kosmograph.cli.options import AllowHttp, Db, JobName, Json


@searching
def export(
    job: JobName,
    asked: Asked,
    output: Annotated[
        str,
        typer.Option(
            "--format", metavar="F", help="jsonl, csv, parquet, coco, yolo, labelstudio, grit, webdataset, hf."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="PATH", help="The file; for yolo, webdataset and hf the folder.")
    ],
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="Words of the caption, as `find` has them.")] = "",
    only_found: Annotated[
        bool, typer.Option("--only-found", help="Of each image only the boxes that the filters found, not all.")
    ] = False,
    categories: Annotated[
        str | None,
        typer.Option(
            "--categories", metavar="head|phrase", help="What boxes are of: head noun (dog), or whole phrase."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            metavar="copy|link|none",
            help="yolo, hf: pictures as well (copy), links to them, or none; yolo lists them all the same.",
        ),
    ] = None,
    shard_images: Annotated[
        int | None, typer.Option("--shard-images", metavar="N", min=1, help="webdataset: images a shard (10000).")
    ] = None,
    shard_bytes: Annotated[
        int | None, typer.Option("--shard-bytes", metavar="N", min=1, help="webdataset: bytes a shard (1000000000).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    allow_http: AllowHttp = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Write what a job has annotated to files for other tools, with a manifest.

    All of it, or the images that the options find: they are those of `find`. Nothing stands under PATH until it is
    whole. Boxes whose corners are the wrong way round are in jsonl, csv, parquet and webdataset, marked; elsewhere they
    are left out. A picture that cannot be read, or has changed, is left out and named, and the exit code is 3; one of a
    format that the readers of yolo or hf pass by is left out and counted. With --images none the train.txt of yolo
    lists files that are not there: put the pictures under these names, which images.csv has beside their URIs.

    Example: kosmograph export photos --format coco --out photos.json --phrase dog --min-score 0.6
    """
    from catalog.search import Search
    from kosmograph.export import export_job

    given = {"categories": categories, "images": images, "shard_images": shard_images, "shard_bytes": shard_bytes}
    code = export_job(
        Search(text=text, job=job, **asked),
        output=output,
        out=out,
        given=given,
        only_found=only_found,
        force=force,
        allow_http=allow_http,
        as_json=as_json,
        db=db,
    )
    raise typer.Exit(code)


COMMANDS = (export,)
