"""A signal that comes while its own thread holds a lock is heard all the same."""

import subprocess
import sys

import pytest

STOPS_IN_THE_MIDST = """
import signal
from schemas.signals import interruptible

with interruptible() as asked:
    with asked._cond:  # as `set` and `wait` hold it, for a moment, in the thread that handlers run in
        signal.raise_signal(signal.{name})
    assert asked.wait(10)
print("heard")
"""
SECOND_CTRL_C = """
import signal
from schemas.signals import interruptible

with interruptible() as asked:
    signal.raise_signal(signal.SIGINT)
    assert asked.wait(10)
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("heard")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
ONE_BY_ONE = """
import signal
from schemas.signals import hear

heard = hear(signal.SIGTERM, signal.SIGINT)
for name in ("SIGINT", "SIGTERM", "SIGTERM"):
    signal.raise_signal(getattr(signal, name))
assert [heard.get(timeout=10) for _ in range(3)] == [signal.SIGINT, signal.SIGTERM, signal.SIGTERM]
print("heard")
"""


@pytest.mark.parametrize(
    "code",
    [
        STOPS_IN_THE_MIDST.format(name="SIGINT"),
        STOPS_IN_THE_MIDST.format(name="SIGTERM"),
        SECOND_CTRL_C,
        ONE_BY_ONE,
    ],
    ids=["ctrl-c in the midst", "sigterm in the midst", "second ctrl-c", "one by one"],
)
def test_signals_are_heard(code: str) -> None:
    begin = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever started the tests
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "heard\n", done.stderr
