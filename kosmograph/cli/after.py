"""`wait` and `prune`: the morning after."""

from typing import Annotated

import typer

from kosmograph.cli.options import Db, JobName, Json, Quiet


def wait(
    job: JobName,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="8h", help="Give up after this long; the job goes on.")
    ] = None,
    quiet: Quiet = False,
    db: Db = None,
) -> None:
    """Wait for the end of a job that others work on, after `submit`.

    Exit codes: 0 done; 3 finished, and some images failed; 1 paused, cancelled, or the time was over; 130 interrupted,
    and the job goes on. A database that is away is waited for, ten minutes at most.

    Example: kosmograph wait archive-2024 --timeout 8h
    """
    from kosmograph.display import Display
    from kosmograph.durations import seconds
    from kosmograph.wait import wait as run
    from schemas.settings import load_settings

    timeout_s = None if timeout is None else seconds(timeout, "--timeout")
    raise typer.Exit(run(job, load_settings(db=db), Display(quiet=quiet), timeout_s=timeout_s, quiet=quiet))


def prune(
    job: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="These jobs, however old.")] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="90d", help="Jobs that ended at least this long ago: 12h, 90d, 26w."),
    ] = None,
    annotations: Annotated[
        bool, typer.Option("--annotations", help="Also annotations, images and contents that no job refers to then.")
    ] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="SQLite: make the file smaller; nobody else writes meanwhile.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Remove old jobs: those that are finished or cancelled, with their outcomes and chunks.

    Annotations stay, since they are what makes the next night cheap: the same bytes under the same recipe are not
    computed again, whichever job brings them. With --annotations those that no job refers to any more go too. Other
    jobs may run meanwhile. What was cut off is continued by the next prune.

    Example: kosmograph prune --older-than 90d --dry-run
    """
    from kosmograph.durations import seconds
    from kosmograph.prune import prune as run

    code = run(
        job or (),
        older_s=None if older_than is None else seconds(older_than, "--older-than"),
        annotations=annotations,
        vacuum=vacuum,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
        db=db,
    )
    raise typer.Exit(code)


COMMANDS = (wait, prune)
