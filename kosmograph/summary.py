"""The end of a run: what came of it, what to type next, and the exit code."""

import shlex
import sys

from kosmograph.annotate import Ending
from kosmograph.exits import DONE, INTERRUPTED, SOME_FAILED, TROUBLE
from kosmograph.output import db_option, say
from producer.registration import Totals
from schemas.ledger.jobs import Job, News
from schemas.settings import Settings
from schemas.uris import printable


def print_summary(ending: Ending, settings: Settings, *, quiet: bool = False) -> int:
    """Print how the run ended on standard output; the exit code. With `quiet`, nothing of what went well."""
    if not ending.interrupted:
        again = "the same command"
        return print_end(ending.job, settings, news=ending.news, quiet=quiet, again=again, totals=ending.totals)
    if not quiet:
        say(counts(ending.job))
        say("interrupted; the same command continues where it stopped")
    return INTERRUPTED


def print_end(
    job: Job, settings: Settings, *, news: News, quiet: bool, again: str, totals: Totals | None = None
) -> int:
    """Print how a job ended, or why it has paused, on standard output; the exit code. `again` is what to do later.

    With `quiet`, a failure that an earlier night has told of is not told once more: the exit code has it.
    """
    name, db = shlex.quote(job.name), db_option(settings)
    if quiet and job.state == "finished" and not (job.failed and news.failed):
        return SOME_FAILED if job.failed else DONE
    say(counts(job))
    if line := what_is_new(job, news):
        say(line)
    if totals and (line := skipped(totals)):
        say(line)
    if job.state in ("paused", "cancelled"):
        reason = f": {printable(job.reason)}" if job.reason else ""
        resume = f"; then: kosmograph resume {name}{db}, or {again}" if job.state == "paused" else ""
        print(f"kosmograph: the job is {job.state}{reason}{resume}", file=sys.stderr)  # noqa: T201
        return TROUBLE
    if job.annotated + job.reused:
        say(f"  look:      kosmograph sql {_quoted(captions_of(job))}{db}")
        say(f"  a picture: kosmograph show URI --save picture.png{db}")
    if job.failed:
        say(f"  failures:  kosmograph failures {name}{db}")
        say(f"  again:     kosmograph retry {name}{db}, then {again}")
    return SOME_FAILED if job.failed else DONE


def captions_of(job: Job) -> str:
    """A query for the first captions of a job."""
    return "SELECT uri, caption FROM captions WHERE job = '{}' LIMIT 10".format(job.name.replace("'", "''"))


def _quoted(query: str) -> str:
    """For a shell: in double quotes, which read well around SQL, where nothing in it means something to them."""
    return shlex.quote(query) if set(query) & set('"$`\\!') else f'"{query}"'


def counts(job: Job) -> str:
    """`photos-brief-1f3a9c: 16 images, 16 annotated, 0 reused, 0 failed`."""
    parts = [f"{job.images} images", f"{job.annotated} annotated", f"{job.reused} reused", f"{job.failed} failed"]
    if job.pending:
        parts.append(f"{job.pending} pending")
    return f"{job.name}: {', '.join(parts)}"


def what_is_new(job: Job, news: News) -> str:
    """For a job that has ended before: what this time has brought."""
    if news.settled == job.settled:
        return ""
    if not news.settled:
        return "  nothing was new"
    return f"  new:       {news.settled}, of which {news.failed} failed"


def skipped(totals: Totals) -> str:
    """What the listing passed over, by kind."""
    if not totals.skipped:
        return ""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(totals.skipped.items()))
    return f"  passed over: {kinds} (--all-files takes all)"
