"""A job's progress in words and figures, the same for the page and for what keeps it up to date."""

from typing import Any

from schemas.uris import printable

PENDING_STATES = ("running", "paused")


def progress_shown(row: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a row of `progress`, as text; `settled` and `total` are numbers, for the bar."""
    total = row["images"] * row["recipes"]
    settled = row["annotated"] + row["reused"] + row["failed"]
    live = row["state"] in PENDING_STATES
    return {
        "name": row["job"],
        "state": row["state"],
        "live": live,
        "reason": printable(row["reason"] or ""),
        "settled": settled,
        "total": total,
        "percent": f"{settled / total:.0%}" if total else "",
        "summary": f"{settled:,} of {total:,}",
        **{name: f"{row[name]:,}" for name in ("images", "recipes", "annotated", "reused", "failed", "pending")},
        "queued": f"{row['queued']:,}",
        "working": f"{row['running']:,}",
        "rate": f"{row['images_per_s']:.3g}" if row["images_per_s"] else "",
        "left": _left(row) if row["state"] == "running" else "",
        "started": _time(row["started_at"]),
        "finished": _time(row["finished_at"]),
    }


def _left(row: dict[str, Any]) -> str:
    """How long the rest takes at the rate so far."""
    if not row["images_per_s"] or row["pending"] <= 0:
        return ""
    seconds = row["pending"] / row["recipes"] / row["images_per_s"]
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _time(value: Any) -> str:
    """To the second: SQLite's view gives text, PostgreSQL's a date, both in UTC."""
    return str(value)[:19] if value else ""
