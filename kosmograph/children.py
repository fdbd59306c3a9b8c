"""Child processes of the front door: each under a keeper, each with a log of its own."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_S = 20.0


class Child:
    """A command that ends with us, however we end. Its output goes to a log file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [*python("kosmograph.keeper"), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C is ours to pass on, once
            )

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs; 128 + N where signal N ended it."""
        return self._keeper.poll()

    def terminate(self) -> None:
        self._keeper.terminate()

    def stop(self) -> int:
        """Ask it to end, wait for it, and insist after a while; the exit code."""
        self.terminate()
        try:
            return self._keeper.wait(STOP_S)
        except subprocess.TimeoutExpired:
            if self._keeper.stdin:
                self._keeper.stdin.close()  # the keeper kills, and then goes itself
            return self._keeper.wait()

    def last_words(self) -> str:
        """The last line of its log that says something."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def python(module: str) -> list[str]:
    """The command that runs a module of ours, safe from modules of the same name in the user's folder."""
    return [sys.executable, "-P", "-m", module]
