"""The screen of `status --watch`: jobs, chunks, workers and failures, within the lines and columns that there are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from catalog.activity import MOST_CHUNKS, MOST_FAILURES, Activity
from kosmograph.output import duration
from schemas.uris import printable

LEAST_NAME, LEAST_BAR, MOST_BAR = 8, 6, 30
GAP = "  "
STYLES = {"running": "green", "paused": "yellow", "cancelled": "red", "expired": "bold red"}


@dataclass
class Seen:
    """What there is to show: the last look that saw something, and since when none did."""

    place: str
    now: Activity | None = None
    at: str = ""
    rates: dict[str, float] = field(default_factory=dict)
    """Images a second of each job, by its name."""
    away: str = ""
    away_s: float = 0.0


class Row(NamedTuple):
    """A line of a table: its cells, or a remark below the row before, and its style."""

    cells: Sequence[str]
    remark: str = ""
    style: str = ""


class Section(NamedTuple):
    """A table: how many of its first columns are names, which are clipped, how many stand to the left, its rows."""

    headings: Sequence[str]
    names: int
    left: int
    rows: Sequence[Row]


def frame(seen: Seen, width: int, height: int) -> Group:
    """All of it within so many columns and lines; what there is no room for is counted."""
    lines = [_head(seen, width)]
    if seen.away:
        lines.append(_line(f"no answer for {duration(seen.away_s)}, asking again: {seen.away}", width, "bold red"))
    if seen.now is None:
        return Group(*lines)
    lines.append(_line(_chunks(seen.now), width))
    sections = [one for one in (_jobs(seen, width), _workers(seen.now), _failures(seen.now)) if one.rows]
    room = height - 1 - len(lines) - 2 * len(sections)  # a blank line and headings each, one line for the cursor
    for section, most in zip(sections, share([len(one.rows) for one in sections], room), strict=True):
        lines += [Text(), *_table(section, width, most)]
    return Group(*lines[: height - 1])


def words_of(row: dict[str, Any], rate: float) -> str:
    """A job in one line: `photos: running, 384 of 2000 images, 3 failed, 13.1/s, 2 min left`."""
    parts = [str(row["state"]), f"{_done(row)} images"]
    if row["failed"]:
        parts.append(f"{row['failed']} failed")
    if row["state"] == "running" and (speed := rate or row["images_per_s"]):
        parts += [f"{speed:.1f}/s", *([f"{left} left"] if (left := _left(row, rate)) else [])]
    if row["reason"]:
        parts.append(row["reason"])
    return f"{row['job']}: {', '.join(parts)}"


def share(wanted: Sequence[int], room: int) -> list[int]:
    """How many lines each gets of a room: what it wants, or a fair part of what there is."""
    given = [0] * len(wanted)
    for _ in range(max(0, min(room, sum(wanted)))):
        open_ = [number for number, want in enumerate(wanted) if given[number] < want]
        given[min(open_, key=lambda number: given[number])] += 1
    return given


def _head(seen: Seen, width: int) -> Text:
    told = f"kosmograph status  {seen.place}"
    return _line(f"{set_cell_size(printable(told), max(20, width - 24))}  {seen.at}  Ctrl-C ends", width, "bold")


def _chunks(now: Activity) -> str:
    counts = [f"{_counted(count, MOST_CHUNKS)} {state}" for state, count in now.chunks.items()]
    names = len({row["worker"] for row in now.workers})
    more = f"; {hidden} more jobs are not shown" if (hidden := now.jobs_in_all - len(now.jobs)) > 0 else ""
    return f"chunks: {', '.join(counts)}; {names or 'no'} worker{'s' * (names != 1)} at work{more}"


def _jobs(seen: Seen, width: int) -> Section:
    rows = []
    for row in seen.now.jobs if seen.now else ():
        rate = seen.rates.get(row["job"], 0.0)
        left = _left(row, rate)
        bar = _bar(row, max(LEAST_BAR, min(MOST_BAR, width - 66)))
        cells = (row["job"], row["state"], bar, _done(row), f"{rate:.1f}", f"{row['images_per_s'] or 0.0:.1f}", left)
        rows.append(Row(cells, style=STYLES.get(row["state"], "")))
        if row["reason"]:
            rows.append(Row((), remark=row["reason"], style=STYLES.get(row["state"], "")))
    return Section(("job", "state", "", "images", "now/s", "so far/s", "left"), 1, 3, rows)


def _workers(now: Activity) -> Section:
    rows = []
    for row in now.workers:
        expired = row["lease_s"] < 0
        lease = "expired" if expired else f"{row['lease_s']:.0f} s"
        since = "" if row["since_s"] is None else duration(max(0.0, row["since_s"]))
        cells = (row["worker"], row["job"], str(row["chunks"]), str(row["images"]), since, lease)
        rows.append(Row(cells, style=STYLES["expired"] if expired else ""))
    rows.sort(key=lambda row: not row.style)  # what wants attention is not what is cut
    return Section(("worker", "job", "chunks", "images", "for", "lease"), 2, 2, rows)


def _failures(now: Activity) -> Section:
    rows = [Row((row["job"], row["code"], _counted(row["failures"], MOST_FAILURES))) for row in now.failures]
    return Section(("failed in", "code", "images"), 1, 2, rows)


def _table(section: Section, width: int, most: int) -> list[Text]:
    """Headings and at most so many lines below; the last of them counts what is left out."""
    rows = [Row([printable(cell) for cell in row.cells], printable(row.remark), row.style) for row in section.rows]
    widths = _widths([section.headings, *(row.cells for row in rows if row.cells)], section.names, width)
    lines = [_cells(section.headings, widths, section.left, "dim")]
    shown = rows if len(rows) <= most else rows[: max(0, most - 1)]
    for row in shown:
        remark = _line(f"{GAP}{row.remark}", width, row.style)
        lines.append(_cells(row.cells, widths, section.left, row.style) if row.cells else remark)
    if len(shown) < len(rows) and most > 0:
        lines.append(_line(f"… and {len(rows) - len(shown)} more", width, "dim"))
    return lines


def _widths(rows: Sequence[Sequence[str]], names: int, width: int) -> list[int]:
    """As wide as the widest cell; where that is too much, the names give way, the widest first."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        widest = max(range(names), key=lambda number: widths[number])
        if widths[widest] <= LEAST_NAME:
            break
        widths[widest] -= 1
    return widths


def _cells(cells: Sequence[str], widths: Sequence[int], left: int, style: str) -> Text:
    """Names and words to the left, numbers to the right."""
    line = []
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        room = " " * (width - cell_len(cell))
        fitted = _clipped(cell, width)
        line.append(fitted + room if number < left else room + fitted)
    return Text(GAP.join(line), style=style, no_wrap=True, overflow="crop")


def _line(text: str, width: int, style: str = "") -> Text:
    return Text(_clipped(printable(text), width), style=style, no_wrap=True, overflow="crop")


def _clipped(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def _bar(row: dict[str, Any], width: int) -> str:
    """How much is settled of what is listed so far."""
    outcomes = row["images"] * row["recipes"]
    full = int(width * (outcomes - row["pending"]) / outcomes) if outcomes else 0
    return "━" * full + "·" * (width - full)


def _done(row: dict[str, Any]) -> str:
    """`384 of 2000`, with a + while more is being listed. Images count when all that is asked of them is settled."""
    settled = (row["annotated"] + row["reused"] + row["failed"]) // row["recipes"]
    return f"{settled} of {row['images']}{'' if row['listed'] else '+'}"


def _left(row: dict[str, Any], rate: float) -> str:
    """How long it takes yet at the rate of now, or at that of the whole where nothing was settled lately."""
    speed = rate or row["images_per_s"]
    if row["state"] != "running" or not speed or not row["pending"] or not row["listed"]:
        return ""
    return duration(row["pending"] / row["recipes"] / speed)


def _counted(count: int, most: int) -> str:
    return f"{most:,}+" if count >= most else f"{count:,}"
