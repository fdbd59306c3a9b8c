"""`annotate`, `submit` and `try`: images to captions and boxes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kosmograph.cli.options import (
    MOST_PRIORITY,
    AllowHttp,
    Broker,
    Db,
    Device,
    Dtype,
    DtypeHere,
    Json,
    Model,
    Notify,
    Quiet,
    Revision,
)
from kosmograph.cli.prompting import Prompted, prompting, request_of

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="File, folder, glob, s3://bucket/prefix, @manifest (txt, csv, jsonl, parquet), URL, or -",
    ),
]
JobOption = Annotated[str | None, typer.Option("--job", metavar="NAME", help="Name of the job, else from the sources.")]
Priority = Annotated[
    int | None,
    typer.Option("--priority", metavar="P", min=-MOST_PRIORITY, max=MOST_PRIORITY, help="Higher goes first."),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="The first N images only.")]
Include = Annotated[list[str] | None, typer.Option("--include", metavar="GLOB", help="Only these names; repeatable.")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Not these names; repeatable.")]
AllFiles = Annotated[bool, typer.Option("--all-files", help="Also hidden names and known non-image extensions.")]
Root = Annotated[
    list[str] | None,
    typer.Option("--root", metavar="FOLDER", help="A manifest may also name files in this folder; repeatable."),
]
Recheck = Annotated[bool, typer.Option("--recheck", help="Read again what comes without a version (manifests).")]
Exact = Annotated[bool, typer.Option("--exact", help="Decode every JPEG in full: slower, the reference's pixels.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first permanent failure.")]


@prompting
def annotate(
    source: Sources,
    *,
    job: JobOption = None,
    prompted: Prompted,
    model: Model = None,
    revision: Revision = None,
    dtype: DtypeHere = None,
    db: Db = None,
    broker: Broker = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Workers to start (1, or one per GPU).")
    ] = None,
    device: Device = None,
    priority: Priority = None,
    limit: Limit = None,
    include: Include = None,
    exclude: Exclude = None,
    all_files: AllFiles = False,
    root: Root = None,
    allow_http: AllowHttp = None,
    recheck: Recheck = False,
    exact: Exact = False,
    strict: Strict = False,
    notify: Notify = None,
    quiet: Quiet = False,
) -> None:
    """Annotate images: the whole job, here and now.

    Starts what it is not given (Redis, workers), and ends when every image is settled.
    The same command again continues where it stopped, and does only what is new.

    Example: kosmograph annotate photos/ --model demo
    """
    from kosmograph.annotate import annotate as run
    from kosmograph.display import Display
    from kosmograph.summary import print_summary
    from schemas.settings import load_settings

    places = {"db": db, "broker": broker, "notify": notify}
    settings = load_settings(workers=workers, device=device, model=model, allow_http=allow_http, **places)
    request = request_of(
        source,
        settings.model,
        prompted,
        filters=filters_of(include, exclude, all_files),
        revision=revision,
        dtype=dtype,
        job=job,
        exact=exact,
        priority=priority,
        strict=strict,
        limit=limit,
        roots=tuple(root or ()),
        recheck=recheck,
    )
    raise typer.Exit(print_summary(run(request, settings, Display(quiet=quiet)), settings, quiet=quiet))


@prompting
def submit(
    source: Sources,
    *,
    job: JobOption = None,
    prompted: Prompted,
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    db: Db = None,
    priority: Priority = None,
    limit: Limit = None,
    include: Include = None,
    exclude: Exclude = None,
    all_files: AllFiles = False,
    root: Root = None,
    allow_http: AllowHttp = None,
    recheck: Recheck = False,
    exact: Exact = False,
    strict: Strict = False,
) -> None:
    """Register images, and leave the work to running workers.

    Prints the job's name when the listing is in the database. `kosmograph dispatch` feeds it to the workers.

    Example: kosmograph submit s3://archive/2024/ --job archive-2024 --model demo
    """
    from kosmograph.submit import submit as run
    from schemas.settings import load_settings

    settings = load_settings(db=db, model=model, allow_http=allow_http)
    request = request_of(
        source,
        settings.model,
        prompted,
        filters=filters_of(include, exclude, all_files),
        revision=revision,
        dtype=dtype,
        job=job,
        exact=exact,
        priority=priority,
        strict=strict,
        limit=limit,
        roots=tuple(root or ()),
        recheck=recheck,
    )
    raise typer.Exit(run(request, settings))


@prompting
def try_(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, s3:// objects, or URLs.")],
    prompted: Prompted,
    model: Model = None,
    revision: Revision = None,
    dtype: DtypeHere = None,
    device: Device = None,
    save: Annotated[Path | None, typer.Option("--save", metavar="FILE.png", help="Draw boxes and phrases.")] = None,
    allow_http: AllowHttp = None,
    cleanup: Annotated[
        bool, typer.Option("--cleanup/--raw", help="The caption and its boxes, or the model's own text with its tags.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Show what the model says of a picture: to find the prompt for the night. No queue, no database.

    Example: kosmograph try examples/images/postcard.jpg --model demo --task brief --phrase "a red circle"
    """
    from kosmograph.try_ import try_images
    from schemas.settings import load_settings

    settings = load_settings(device=device, model=model, allow_http=allow_http)
    request = request_of(
        image,
        settings.model,
        prompted,
        revision=revision,
        dtype=dtype,
    )
    raise typer.Exit(try_images(request, settings, save=save, raw=not cleanup, as_json=as_json))


try_.__name__ = "try"


def filters_of(include: list[str] | None, exclude: list[str] | None, all_files: bool) -> Any:
    from producer.sources import Filters

    return Filters(tuple(include or ()), tuple(exclude or ()), all_files)


COMMANDS = (annotate, submit, try_)
