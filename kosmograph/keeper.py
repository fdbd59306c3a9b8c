"""A process that runs a command and ends it when its own standard input closes, so that no child outlives `annotate`.

`python -m kosmograph.keeper COMMAND...`: SIGTERM is passed on; the exit code is the command's.
"""

import os
import signal
import subprocess
import sys
from threading import Thread

GRACE_S = 15.0


def main(command: list[str]) -> None:
    """Run the command until it ends or nobody holds the other end of standard input any more."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_input, args=(child,), daemon=True).start()
    code = child.wait()
    os._exit(code if code >= 0 else 128 - code)  # the thread may still read: nothing to wait for


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
