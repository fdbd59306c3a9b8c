"""`migrate`, `dispatch` and `worker`: what runs beside a shared Redis and database."""

from typing import Annotated

import typer

from kosmograph.cli.options import AllowHttp, Broker, Db, Device, Dtype, Model, Notify, Revision


def migrate(db: Db = None) -> None:
    """Make the database's tables, or bring them up to date: for a step of its own before services start.

    Every command that writes does the same by itself. Of many at once, one works and the others wait.

    Example: kosmograph migrate --db postgresql://kosmograph@db/kosmograph
    """
    from kosmograph.services import migrate as run
    from schemas.settings import load_settings

    raise typer.Exit(run(load_settings(db=db)))


def dispatch(db: Db = None, broker: Broker = None, notify: Notify = None) -> None:
    """Feed the queue from the ledger: a service. Any number may run.

    With KOSMOGRAPH_METRICS_PORT it serves /metrics, /live and /ready.

    Example: kosmograph dispatch --db postgresql://kosmograph@db/kosmograph --broker redis://redis:6379/0
    """
    from kosmograph.services import run_dispatcher
    from schemas.settings import load_settings

    raise typer.Exit(run_dispatcher(load_settings(db=db, broker=broker, notify=notify)))


def worker(
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    db: Db = None,
    broker: Broker = None,
    device: Device = None,
    allow_http: AllowHttp = None,
    gpus: Annotated[str | None, typer.Option("--gpus", metavar="all|0,1", help="One worker process for each.")] = None,
    name: Annotated[str | None, typer.Option("--name", hidden=True)] = None,
) -> None:
    """Annotate what comes through the queue: a service. One process holds one model on one device.

    With KOSMOGRAPH_METRICS_PORT it serves /metrics, /live and /ready; --gpus counts the ports up from there.

    Example: kosmograph worker --model demo --device cpu --broker redis://redis:6379/0
    """
    from kosmograph.services import run_one_worker, run_workers
    from schemas.errors import UsageError
    from schemas.settings import load_settings

    if gpus is not None and device is not None:
        raise UsageError("--gpus and --device exclude each other: --device is for one worker")
    settings = load_settings(model=model, db=db, broker=broker, device=device, allow_http=allow_http)
    if gpus is not None:
        raise typer.Exit(run_workers(settings, revision=revision, dtype=dtype, gpus=gpus))
    raise typer.Exit(run_one_worker(settings, revision=revision, dtype=dtype, name=name))


COMMANDS = (migrate, dispatch, worker)
