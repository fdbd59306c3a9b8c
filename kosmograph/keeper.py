"""A process that runs a command and ends it when its own standard input closes, so that no child outlives `annotate`.

`python -m kosmograph.keeper COMMAND...`: SIGTERM is passed on, and SIGINT as SIGTERM; the exit code is the command's,
or 128 + N where signal N ended it.
"""

import ctypes
import os
import signal
import subprocess
import sys
from functools import partial
from queue import SimpleQueue
from threading import Thread

from schemas.signals import STOP_SIGNALS, hear

GRACE_S = 15.0
PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    """Run the command until it ends or nobody holds the other end of standard input any more."""
    heard = hear(*STOP_SIGNALS)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_keeper)
    for watch in (partial(_pass_on, child, heard), partial(_end_with_input, child)):
        Thread(target=watch, daemon=True).start()
    code = child.wait()
    os._exit(code if code >= 0 else 128 - code)  # the threads may still wait: for nothing


def _end_with_keeper() -> None:
    """In the child: Linux ends it when its keeper is killed, which leaves nobody to watch for it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _pass_on(child: "subprocess.Popen[bytes]", heard: "SimpleQueue[int]") -> None:
    while heard.get():
        child.terminate()


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
