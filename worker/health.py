"""Whether a worker is of use, and whether a restart would help it: what `/ready` and `/live` say."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from worker.busy import Engine
from worker.loader import Figures as LoaderFigures
from worker.probe import BrokerLink
from worker.revision import ModelRef
from worker.tasks import ChunkTask

ENGINE_STILL_S = 600.0
"""An engine that computes marks each batch of images and each few tokens. The longest that is sound between two marks
is `torch.compile`, of minutes; next come 16 images on a slow CPU."""
LOOP_STILL_S = 300.0
"""The consumer's loop wakes every few seconds. A broker that says nothing holds it up for its socket's 30 seconds, a
few times over where the client tries again."""
BROKER_SILENT_S = 15.0
"""Five times the probe's interval."""


class Loader(Protocol):
    def figures(self) -> LoaderFigures: ...


class Working(NamedTuple):
    """The parts of a worker that has its model."""

    model: ModelRef
    runtime: str
    engine: Engine
    loader: Loader
    task: ChunkTask


@dataclass
class Health:
    """Answers with "", or in one line why not. It looks at what is in memory only: it never waits."""

    link: BrokerLink = field(default_factory=BrokerLink)
    working: Working | None = None
    """None while the model is loaded."""

    def live(self) -> str:
        """Never blames the worker for a broker or a database that is away: then nothing is in hand, or nothing due."""
        engine_s = self.working.engine.figures.still_s if self.working else 0.0
        if engine_s > ENGINE_STILL_S:
            return f"the engine has work in hand, and has computed nothing for {engine_s:.0f} s"
        if self.link.still_s > LOOP_STILL_S:
            return f"the loop that takes messages has stood still for {self.link.still_s:.0f} s"
        return ""

    def ready(self) -> str:
        if self.working is None:
            return "the model is being loaded"
        if self.working.task.stopping.is_set():
            return "the worker is about to end"
        if self.link.silent_s > BROKER_SILENT_S:
            return "the broker does not answer"
        return self.live()
