"""What a person sees while a job runs, on standard error: a live bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kosmograph.output import duration
from schemas.ledger.jobs import Job
from schemas.uris import printable

LINE_EVERY_S = 10.0
RATE_OVER_S = 30.0


class View(Protocol):
    """What a run tells how far it is."""

    def showing(self, name: str) -> AbstractContextManager[None]: ...

    def update(self, job: Job, *, listed: bool) -> None: ...

    def say(self, text: str) -> None: ...


class Display:
    """Done, failed, rate and time left of one job."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = sys.stderr.isatty() and not quiet
        self._progress: Progress | None = None
        self._seen: deque[tuple[float, int]] = deque()
        self._next_line = 0.0

    @contextmanager
    def showing(self, name: str) -> Iterator[None]:
        """The display is there while the block runs."""
        if not self._live:
            self.say(f"job {name}")
            yield
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, TimeElapsedColumn(), console=self._console) as self._progress:
            self._task = self._progress.add_task(printable(name), total=None, note="starting")
            yield
        self._progress = None

    def update(self, job: Job, *, listed: bool) -> None:
        """Show the job as it stands; `listed` says that no more images will come."""
        now = time.monotonic()
        self._remember(now, job.settled)
        total = job.images * job.recipes
        note = self._note(job, listed)
        if self._progress is not None:
            self._progress.update(self._task, completed=job.settled, total=total if listed else None, note=note)
        elif not self._live and now >= self._next_line:
            self._next_line = now + LINE_EVERY_S
            self.say(f"{job.settled} of {total}{'' if listed else '+'} {note}".rstrip())

    def say(self, text: str) -> None:
        """One line for a person."""
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def _remember(self, now: float, settled: int) -> None:
        self._seen.append((now, settled))
        while now - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()

    def _note(self, job: Job, listed: bool) -> str:
        (then, before), (now, settled) = self._seen[0], self._seen[-1]
        per_s = (settled - before) / (now - then) if now > then else 0.0
        parts = [f"{job.failed} failed"] if job.failed else []
        if per_s > 0:
            parts.append(f"{per_s:.1f}/s")
            if listed and job.pending:
                parts.append(f"{duration(job.pending / per_s)} left")
        elif not job.settled:
            parts.append("starting")
        return ", ".join(parts)


@contextmanager
def counting(what: str, total: int, of: str) -> Iterator[Callable[[], None]]:
    """A function to call whenever one more is done, while the block runs; `what: 300 of 5000 images` is shown."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(f"{of}, {{task.fields[left]}}"))
    began, done, next_line = time.monotonic(), 0, time.monotonic() + LINE_EVERY_S
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, left="starting")

        def one_more() -> None:
            nonlocal done, next_line
            done += 1
            now = time.monotonic()
            left = f"{duration((now - began) / done * (total - done))} left"
            bar.update(task, completed=done, left=left)
            if not console.is_terminal and now >= next_line and done < total:
                next_line = now + LINE_EVERY_S
                console.print(f"{what}: {done} of {total} {of}, {left}", markup=False, soft_wrap=True)

        yield one_more


@contextmanager
def amounts(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with how many more are done, while the block runs: a bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda more: bar.advance(task, more)
