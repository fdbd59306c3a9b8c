"""The end of a run: what came of it, what to type next, and the exit code."""

import shlex
import sys

from kosmograph.annotate import Ending
from kosmograph.output import say
from producer.registration import Totals
from schemas.ledger.jobs import Job
from schemas.settings import DEFAULT_DB, Settings

DONE, TROUBLE, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130


def print_summary(ending: Ending, settings: Settings) -> int:
    """Print how the run ended on standard output; the exit code."""
    job, db = ending.job, "" if settings.db == DEFAULT_DB else " --db " + shlex.quote(_shown(settings))
    say(counts(job))
    if line := skipped(ending.totals):
        say(line)
    if ending.interrupted:
        say("interrupted; the same command continues where it stopped")
        return INTERRUPTED
    if job.state in ("paused", "cancelled"):
        resume = f"; then: kosmograph resume {job.name}{db}, or the same command" if job.state == "paused" else ""
        print(f"kosmograph: the job is {job.state}: {job.reason}{resume}", file=sys.stderr)  # noqa: T201
        return TROUBLE
    if job.annotated + job.reused:
        query = f"SELECT uri, caption FROM captions WHERE job = '{job.name}' LIMIT 10"
        quoted = f'"{query}"' if job.name.isascii() and not set(job.name) & set('"$`\\!') else shlex.quote(query)
        say(f"  look:      kosmograph sql {quoted}{db}")
        say(f"  a picture: kosmograph show URI --save picture.png{db}")
    if job.failed:
        say(f"  failures:  kosmograph failures {job.name}{db}")
        say(f"  again:     kosmograph retry {job.name}{db}, then the same command")
    return SOME_FAILED if job.failed else DONE


def counts(job: Job) -> str:
    """`photos-brief-1f3a9c: 16 images, 16 annotated, 0 reused, 0 failed`."""
    parts = [f"{job.images} images", f"{job.annotated} annotated", f"{job.reused} reused", f"{job.failed} failed"]
    if job.pending:
        parts.append(f"{job.pending} pending")
    return f"{job.name}: {', '.join(parts)}"


def skipped(totals: Totals) -> str:
    """What the listing passed over, by kind."""
    if not totals.skipped:
        return ""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(totals.skipped.items()))
    return f"  passed over: {kinds} (--all-files takes all)"


def _shown(settings: Settings) -> str:
    from schemas.database import Database

    return str(Database(settings.db))
