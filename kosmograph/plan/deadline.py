"""Until when: `06:00`, which is the next time that it is six here, or `8h`, `90m`, `7h30m` from now."""

import re
from datetime import datetime, time, timedelta

from schemas.errors import UsageError

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_DURATION = re.compile(r"(?=\d)(?:(\d{1,4}(?:\.\d+)?)h)?(?:(\d{1,5})m(?:in)?)?")


def deadline_of(text: str, now: datetime) -> datetime:
    """The moment, in this machine's zone. `now` is its local time, without a zone.

    A night in which the clocks change is an hour shorter or longer.
    """
    if found := _CLOCK.fullmatch(text):
        at = time(int(found[1]), int(found[2]))
        day = now.date() if at > now.time() else now.date() + timedelta(days=1)
        return datetime.combine(day, at).astimezone()
    if found := _DURATION.fullmatch(text):
        return now.astimezone() + timedelta(hours=float(found[1] or 0), minutes=int(found[2] or 0))
    raise UsageError(f"--deadline takes a time of day as in 06:00, or a time from now as in 8h or 90m, not {text!r}")
