"""Child processes of the front door: each under a keeper, so that they end with us."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_S = 20.0
TOLD = "kosmograph: "
"""How the line begins in which a command of ours says why it ends."""


class Child:
    """A command that ends with us, however we end. Its output goes to a log file, or to our own standard error."""

    def __init__(self, command: Sequence[str], log: Path | None, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        output = log.open("ab") if log else None
        self._keeper = subprocess.Popen(
            [*python("kosmograph.keeper"), *command],
            stdin=subprocess.PIPE,
            stdout=output or sys.stderr,
            stderr=output or sys.stderr,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to pass on, once
        )
        if output:
            output.close()

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs; 128 + N where signal N ended it."""
        code = self._keeper.poll()
        if code is not None:
            self._let_go()
        return code

    def terminate(self) -> None:
        self._keeper.terminate()

    def stop(self) -> int:
        """Ask it to end, wait for it, insist after a while, and then use force; the exit code."""
        self.terminate()
        for last_resort in (self._let_go, self._kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(STOP_S)
                break
            last_resort()
        self._let_go()
        return self._keeper.wait()

    def _let_go(self) -> None:
        """Close our end of the pipe: a keeper that is still there ends its command, by force if it must."""
        assert self._keeper.stdin
        self._keeper.stdin.close()

    def _kill(self) -> None:
        """Keeper, command and all that they have started."""
        os.killpg(self._keeper.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """Why it ended, in its own words where it has said so, else the last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log else []
        told = [line.removeprefix(TOLD) for line in lines if line.startswith(TOLD)]
        if told or lines:
            return (told or lines)[-1]
        return f"it ended with code {self.code}" + (" and said nothing" if self.log else ", see its lines above")


def python(module: str) -> list[str]:
    """The command that runs a module of ours, safe from modules of the same name in the user's folder."""
    return [sys.executable, "-P", "-m", module]
