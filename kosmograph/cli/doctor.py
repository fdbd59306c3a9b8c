"""`doctor`: what is there and what is missing."""

from pathlib import Path
from typing import Annotated

import typer

from kosmograph.cli.options import Broker, Db, DtypeHere, Model, Revision


def doctor(
    model: Model = None,
    revision: Revision = None,
    dtype: DtypeHere = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden",
            metavar="FILE.jpg",
            help="snowman.jpg of KOSMOS-2's page on the hub, where neither the hub nor the model's folder has it.",
        ),
    ] = None,
    db: Db = None,
    broker: Broker = None,
) -> None:
    """Check this machine: packages, Redis, database, GPU.

    With --model also that model: its config, tokens, image size, resampler, and a caption that is known to the letter.

    Example: kosmograph doctor --model demo
    """
    from kosmograph.doctor import examine
    from schemas.errors import UsageError
    from schemas.settings import load_settings

    for option, given in (("--revision", revision), ("--dtype", dtype), ("--golden", golden)):
        if model is None and given is not None:
            raise UsageError(f"{option} is of a model: give --model too")
    settings = load_settings(db=db, broker=broker, model=model)
    raise typer.Exit(examine(settings, with_model=model is not None, revision=revision, dtype=dtype, golden=golden))


COMMANDS = (doctor,)
