"""`doctor`: what is there and what is missing."""

import typer

from kosmograph.cli.options import Broker, Db, Model, Revision


def doctor(model: Model = None, revision: Revision = None, db: Db = None, broker: Broker = None) -> None:
    """Check this machine: packages, Redis, database, GPU; with --model also that model, down to a caption.

    Example: kosmograph doctor --model demo
    """
    from kosmograph.doctor import examine
    from schemas.settings import load_settings

    raise typer.Exit(
        examine(load_settings(db=db, broker=broker, model=model), with_model=model is not None, revision=revision)
    )


COMMANDS = (doctor,)
