"""How long: as people write it on a command line."""

import re

from schemas.errors import UsageError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
FORM = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds(text: str, flag: str) -> float:
    """`90d`, `1.5h` or `30m` in seconds. Raises UsageError for anything else."""
    found = FORM.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(f"{flag} takes a number with a unit: 30m, 8h, 90d or 12w, not {text!r}")
    return float(found[1]) * SECONDS[found[2]]
