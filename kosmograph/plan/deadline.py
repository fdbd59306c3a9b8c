"""Until when: `06:00`, which is the next time that it is six here, or `8h`, `90m`, `7h30m` from now."""

import re
from datetime import datetime, time, timedelta

from kosmograph.durations import parsed
from schemas.errors import UsageError

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def deadline_of(text: str, now: datetime) -> datetime:
    """The moment, in this machine's zone. `now` is its local time, without a zone.

    A night in which the clocks change is an hour shorter or longer.
    """
    if found := _CLOCK.fullmatch(text):
        at = time(int(found[1]), int(found[2]))
        day = now.date() if at > now.time() else now.date() + timedelta(days=1)
        return datetime.combine(day, at).astimezone()
    if (left_s := parsed(text)) is not None:
        return now.astimezone() + timedelta(seconds=left_s)
    raise UsageError(f"--deadline takes a time of day as in 06:00, or a time from now as in 8h or 90m, not {text!r}")
