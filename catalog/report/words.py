"""Numbers, times and spans in words."""

import math
from datetime import UTC, datetime


def number(value: int) -> str:
    """`1,234,567`."""
    return f"{value:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def compact(value: float, most: float | None = None) -> str:
    """Short: `0.25`, `12.5`, `1,290`, `25 k`, `1.5 M`; on an axis, in the unit that suits the `most` on it."""
    most = value if most is None else most
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value and (most >= 10 * size or (size > 1e3 and most >= size)):
            return f"{_digits(value / size)}{unit}"
    return f"{value:,.0f}" if value >= 1000 else _digits(value)


def _digits(value: float) -> str:
    """Three of them that count."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def share(part: int, whole: int) -> str:
    """`12.5 %`; nothing of nothing is none."""
    return f"{100 * part / whole:.3g} %" if whole else "0 %"


def moment(at: float) -> str:
    """`2026-11-23 12:50 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """`25.6 s`, `12 min 5 s`, `3 h 12 min`, `2 d 4 h`: the two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    left = math.floor(seconds + 0.5)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
