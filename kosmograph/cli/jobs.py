"""`status`, `pause`, `resume`, `cancel`, `priority`, `retry`, `failures`: a job's state, seen and changed."""

from typing import Annotated

import typer

from kosmograph.cli.options import MOST_PRIORITY, Db, JobName, Json


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job only.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="A live screen, until no job runs any more.")] = False,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Jobs: state, counts, rate.

    With --watch also who works on what, what waits, what failed and how long it will still take: a screen on a
    terminal, lines for a log elsewhere, JSON documents one after the other with --json.

    Example: kosmograph status
    """
    from kosmograph.control import show_status

    raise typer.Exit(show_status(job, watch=watch, as_json=as_json, db=db))


def pause(job: JobName, db: Db = None) -> None:
    """Pause a job: running chunks are committed, the others wait.

    Example: kosmograph pause archive-2024
    """
    from kosmograph.control import pause as run

    raise typer.Exit(run(job, db))


def resume(
    job: JobName,
    new_canary: Annotated[
        bool, typer.Option("--new-canary", help="After a drift: what the model says now is right, for all its jobs.")
    ] = False,
    db: Db = None,
) -> None:
    """Let a paused job go on.

    Example: kosmograph resume archive-2024
    """
    from kosmograph.control import resume as run

    raise typer.Exit(run(job, db, new_canary=new_canary))


def cancel(job: JobName, db: Db = None) -> None:
    """End a job where it is: what is annotated stays.

    Example: kosmograph cancel archive-2024
    """
    from kosmograph.control import cancel as run

    raise typer.Exit(run(job, db))


def priority(
    job: JobName,
    priority: Annotated[
        int,
        typer.Argument(
            metavar="P", min=-MOST_PRIORITY, max=MOST_PRIORITY, help="Higher goes first; -- before a negative one."
        ),
    ],
    db: Db = None,
) -> None:
    """Change whose images go first: within seconds, whatever is queued already.

    Example: kosmograph priority archive-2024 10
    """
    from kosmograph.control import set_priority

    raise typer.Exit(set_priority(job, priority, db))


def retry(
    job: JobName,
    code: Annotated[str | None, typer.Option("--code", metavar="CODE", help="Only failures of this code.")] = None,
    db: Db = None,
) -> None:
    """Put failed images back to work, all or those of one code.

    Example: kosmograph retry archive-2024 --code timeout
    """
    from kosmograph.control import retry as run

    raise typer.Exit(run(job, code, db))


def failures(job: JobName, as_json: Json = False, db: Db = None) -> None:
    """Images that could not be annotated, and why.

    Example: kosmograph failures archive-2024
    """
    from kosmograph.control import show_failures

    raise typer.Exit(show_failures(job, as_json=as_json, db=db))


COMMANDS = (status, pause, resume, cancel, priority, retry, failures)
