"""A process that runs a command and ends it when its own standard input closes, so that no child outlives `annotate`.

`python -m kosmograph.keeper COMMAND...`: SIGTERM is passed on, and SIGINT as SIGTERM; the exit code is the command's,
or 128 + N where signal N ended it.
"""

import ctypes
import os
import signal
import subprocess
import sys
from threading import Event, Thread

GRACE_S = 15.0
PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    """Run the command until it ends or nobody holds the other end of standard input any more."""
    asked = Event()
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(*_: object) -> None:
        asked.set()
        for child in children:
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_keeper))
    if asked.is_set():  # before there was a child
        pass_on()
    Thread(target=_end_with_input, args=children, daemon=True).start()
    code = children[0].wait()
    os._exit(code if code >= 0 else 128 - code)  # the thread may still read: nothing to wait for


def _end_with_keeper() -> None:
    """In the child: Linux ends it when its keeper is killed, which leaves nobody to watch for it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_with_input(child: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
