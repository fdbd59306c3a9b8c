"""What a campaign has seen, as a table."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.invariants import Kind as ViolationKind
from tests.faults.invariants import Violation

VIOLATIONS: tuple[ViolationKind, ...] = ("lost", "doubled", "leased", "other")
HEAD = ("fault", "database", "times", "jobs", "images", "median s", "max s", *VIOLATIONS)


@dataclass(frozen=True)
class Thrown:
    """One fault that hit a running job."""

    kind: str
    at: float
    """By the monotonic clock."""
    lasts_s: float


@dataclass
class Seen:
    """One job: what was thrown into it, and what came of it."""

    job: str
    database: str
    images: int
    thrown: list[Thrown] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    """Of each fault, from its beginning until the ledger settled outcomes again."""
    violations: list[Violation] = field(default_factory=list)


def rows(seen: Sequence[Seen]) -> Iterable[tuple[str, ...]]:
    """A row for each kind and database, the most frequent first, and one for all."""
    for database in dict.fromkeys(job.database for job in seen):
        jobs = [job for job in seen if job.database == database]
        kinds = sorted({fault.kind for job in jobs for fault in job.thrown})
        for kind in kinds:
            yield _row(kind, database, [job for job in jobs if any(fault.kind == kind for fault in job.thrown)], kind)
        yield _row("all", database, jobs, None)


def _row(name: str, database: str, jobs: Sequence[Seen], kind: str | None) -> tuple[str, ...]:
    recoveries = [
        seconds
        for job in jobs
        for fault, seconds in zip(job.thrown, job.recoveries_s, strict=True)
        if kind in (None, fault.kind)
    ]
    broken = [sum(violation.kind == name for job in jobs for violation in job.violations) for name in VIOLATIONS]
    slow = (f"{statistics.median(recoveries):.1f}", f"{max(recoveries):.1f}") if recoveries else ("", "")
    images = sum(job.images for job in jobs)
    return (name, database, str(len(recoveries)), str(len(jobs)), str(images), *slow, *map(str, broken))


def as_text(seen: Sequence[Seen]) -> str:
    """In columns, which Markdown understands too."""
    table = [HEAD, *rows(seen)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        " | ".join(_aligned(cell, at, width) for at, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join(f"| {line} |" if line is not rule else f"|{line}|" for line in (lines[0], rule, *lines[1:]))


def _aligned(cell: str, at: int, width: int) -> str:
    return cell.ljust(width) if at < 2 else cell.rjust(width)
