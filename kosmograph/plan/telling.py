"""How far a plan is, on standard error: a live line on a terminal, one now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

EVERY_S = 10.0
Tell = Callable[[str], None]


@contextmanager
def telling() -> Iterator[Tell]:
    """Takes the words of now, as often as they come."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(text)
        return
    next_line = time.monotonic() + EVERY_S

    def line(text: str) -> None:
        nonlocal next_line
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + EVERY_S
            console.print(text, markup=False, soft_wrap=True)

    yield line
