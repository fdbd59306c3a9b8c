"""How long, as people write it."""

import pytest

from kosmograph.durations import seconds
from schemas.errors import UsageError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30m", 1800),
        ("90min", 5400),
        ("1.5h", 5400),
        ("7h30m", 27_000),
        ("90d", 7_776_000),
        ("0s", 0),
        (" 2W ", 1_209_600),
    ],
)
def test_a_time_is_numbers_with_their_units(text: str, found: float) -> None:
    assert seconds(text, "--timeout") == found


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "5x", "7h 30m", "1e9h", "99999999h", "1h" * 4])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--timeout takes numbers with their units"):
        seconds(text, "--timeout")
