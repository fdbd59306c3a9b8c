"""What a dispatcher counts of its own doing, and what follows of its health."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

STILL_S = 900.0
"""A loop that stands still for longer is stuck: a database that is away, or whose disk hangs, is waited for in less."""
LATE_S = 60.0
"""A step that takes longer waits for database or broker."""


@dataclass
class Tally:
    """What a dispatcher has done and found, for whoever asks from another thread."""

    sent: int = 0
    """Chunks that went out."""
    republished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("lost", "stale", "expired"), 0))
    """Chunks that went back: the broker lost them, nobody took them, or their worker died."""
    outages: int = 0
    """Spells in which database or broker were away."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Messages that waited, by queue, when it last looked."""
    reached: bool | None = None
    """Whether the last step that ended reached database and broker; None before the first."""
    turned_at: float | None = None
    """When the last step began, by the clock that goes on; None before the first."""
    now: Callable[[], float] = time.monotonic

    @property
    def still_s(self) -> float:
        return 0.0 if self.turned_at is None else self.now() - self.turned_at

    def live(self) -> str:
        """ "", or why a restart would help. One that waits for database or broker goes on looking for them."""
        return f"the dispatcher has stood still for {self.still_s:.0f} s" if self.still_s > STILL_S else ""

    def ready(self) -> str:
        """ "", or why the last step did not reach database and broker."""
        if self.reached is None:
            return "the dispatcher has not begun"
        return "" if self.reached and self.still_s < LATE_S else "waiting for database and broker"
