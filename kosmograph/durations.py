"""How long: as people write it on a command line."""

import re

from schemas.errors import UsageError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
PART = r"(\d{1,5}(?:\.\d+)?)(s|m(?:in)?|h|d|w)"


def seconds(text: str, flag: str) -> float:
    """`90d`, `1.5h` or `7h30m` in seconds. Raises UsageError for anything else."""
    if (found := parsed(text)) is None:
        raise UsageError(f"{flag} takes numbers with their units: 30m, 7h30m, 90d or 12w, not {text!r}")
    return found


def parsed(text: str) -> float | None:
    """The same; None for anything else."""
    plain = text.strip().lower()
    if not re.fullmatch(f"(?:{PART}){{1,3}}", plain):
        return None
    return sum(float(number) * SECONDS[unit[0]] for number, unit in re.findall(PART, plain))
