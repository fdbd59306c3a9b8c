"""A calibration: from the evidence for a box to the chance that it is right, for one model, task and way of verifying.

A model's folder may bring some, in `calibration.json`: what `kosmograph calibrate --save` writes.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import SetupError

FILE = "calibration.json"
MOST_POINTS = 1000
STEP = 1e-6
"""Evidence is told apart by this: points that were closer would have slopes that no arithmetic follows."""

Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Identity(NamedTuple):
    """What a calibration is for."""

    model: str
    revision: str
    task: str
    verify: str


class Report(BaseModel):
    """How well the map does, on boxes of images that it was not fitted on (`folds` maps, each without a part of them).

    `scored` boxes have a score. AUROC is None without right or without wrong boxes. The bins of `reliability`, and so
    of ECE, have as many boxes each: their mean evidence or trust, the part of them that is right, and how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    boxes: int
    right: int
    scored: int
    folds: int
    score_auroc: float | None
    evidence_auroc: float | None
    trust_auroc: float | None
    evidence_ece: float
    trust_ece: float
    evidence_reliability: tuple[tuple[float, float, int], ...]
    trust_reliability: tuple[tuple[float, float, int], ...]


class Calibration(BaseModel):
    """A map as points (evidence, trust), linear between them, with the sha256 of the truth that it was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str
    task: str
    verify: str
    truth: str
    report: Report
    points: Annotated[tuple[tuple[Part, Part], ...], Field(min_length=2, max_length=MOST_POINTS)]

    @model_validator(mode="after")
    def _is_a_map(self) -> Self:
        if self.points[0][0] != 0 or any(b[0] - a[0] < STEP / 2 or a[1] > b[1] for a, b in pairwise(self.points)):
            raise ValueError("the points of a map begin at evidence 0, and rise")
        return self

    @property
    def identity(self) -> Identity:
        return Identity(self.model, self.revision, self.task, self.verify)

    @property
    def knots(self) -> list[tuple[float, float, float]]:
        """Evidence, trust there, and the slope from there to the next one."""
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(self.points)]
        return [(*point, slope) for point, slope in zip(self.points, [*slopes, 0.0], strict=True)]


class Calibrations(BaseModel):
    """What a file of calibrations holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibrations: tuple[Calibration, ...]


def read_calibrations(path: Path) -> Sequence[Calibration]:
    """Those in a file. Raises SetupError where it is none that `calibrate --save` has written."""
    try:
        return Calibrations.model_validate_json(path.read_bytes()).calibrations
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SetupError(
            f"{path} holds no calibration ({place}: {first['msg']}); make it again with kosmograph calibrate --save"
        ) from None


def calibrations_json(calibrations: Sequence[Calibration]) -> str:
    """The text of such a file."""
    return Calibrations(calibrations=tuple(calibrations)).model_dump_json(indent=1) + "\n"
