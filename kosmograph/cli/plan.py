"""`plan`: what an archive would take."""

from typing import Annotated

import typer

from kosmograph.cli.options import AllowHttp, Db, Device, DtypeHere, Json, Model, Revision
from kosmograph.cli.prompting import Prompted, prompting, request_of
from kosmograph.cli.run import AllFiles, Exact, Exclude, Include, Root, Sources, filters_of


@prompting
def plan(
    source: Sources,
    prompted: Prompted,
    model: Model = None,
    revision: Revision = None,
    dtype: DtypeHere = None,
    device: Device = None,
    db: Db = None,
    include: Include = None,
    exclude: Exclude = None,
    all_files: AllFiles = False,
    root: Root = None,
    allow_http: AllowHttp = None,
    exact: Exact = False,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            min=1,
            help="Try N images at least, however long it takes (256, and 3 minutes at most).",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Workers like the one that is tried (1).")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price", metavar="P", min=0, help="What an hour of one worker costs, that is of a GPU."),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="06:00|8h", help="Say how many workers are done by then.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images", metavar="TOTAL", min=1, help="How many there are, where counting them all takes too long."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what annotating would take: time, GPU-hours, money, database, failures, and what the limit is.

    Counts the images, draws some at random, and annotates them as `annotate` would, with a worker of this machine and a
    database that goes when it is done. Intervals hold nine times in ten as far as the draw decides: a machine that is
    busier or faster later is not in them.

    Example: kosmograph plan photos/ --model demo --workers 4 --deadline 06:00
    """
    from kosmograph.plan.run import Order
    from kosmograph.plan.run import plan as run
    from schemas.settings import load_settings

    settings = load_settings(db=db, device=device, model=model, allow_http=allow_http)
    request = request_of(
        source,
        settings.model,
        prompted,
        filters=filters_of(include, exclude, all_files),
        revision=revision,
        dtype=dtype,
        exact=exact,
        roots=tuple(root or ()),
    )
    order = Order(sample, workers, price, deadline, images, as_json)
    raise typer.Exit(run(request, order, settings))


COMMANDS = (plan,)
