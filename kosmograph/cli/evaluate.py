"""`evaluate`: the paper's protocols, on annotation files that lie here."""

from pathlib import Path
from typing import Annotated

import typer

from kosmograph.cli.options import Device, DtypeHere, Json, Model, Revision


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The annotation file (JSON).")],
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="refcoco|flickr30k|coco-json",
            help="What PATH is: MDETR's finetune_refcoco*.json or final_flickr_*.json, or COCO instances.",
        ),
    ],
    images: Annotated[
        Path, typer.Option("--images", metavar="FOLDER", help="Where the images lie; COCO's train2014/, val2014/ too.")
    ],
    entities: Annotated[
        Path | None,
        typer.Option("--entities", metavar="FOLDER", help="For flickr30k: Flickr30k Entities, with its boxes."),
    ] = None,
    model: Model = None,
    revision: Revision = None,
    dtype: DtypeHere = None,
    device: Device = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="The first N images only.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Every prompt with its answer, boxes and truth.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold a model against a data set, by the paper's protocol, beside the paper's figures.

    Each phrase is asked for by itself; the first box is right if its IoU with the true one is at least 0.5.

    Example: kosmograph evaluate examples/drawings.json --dataset coco-json --images examples/images --model demo
    """
    from kosmograph.evaluation.run import Order
    from kosmograph.evaluation.run import evaluate as run
    from schemas.settings import load_settings

    settings = load_settings(model=model, device=device)
    order = Order(dataset, path, images, entities, settings.model, revision, dtype, limit, out)
    raise typer.Exit(run(order, settings, as_json=as_json))


COMMANDS = (evaluate,)
