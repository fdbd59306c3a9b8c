"""A plan in words for a person, and as a document for a script."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kosmograph.output import duration
from kosmograph.plan.estimate import Asked, Estimate, Failing
from kosmograph.plan.intervals import Figure
from kosmograph.plan.sample import SEED, Sample
from kosmograph.plan.trial import Trial
from schemas.errors import CONTENT_CODES

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
LIMITS = {
    "fetch": "fetching: the loader processes wait for the storage. Bring it nearer (a bucket of the same region, a"
    " local copy), or set KOSMOGRAPH_LOADER_PROCESSES higher",
    "decode": "decoding: the loader processes have all they can do. Give the worker more cores (and"
    " KOSMOGRAPH_LOADER_PROCESSES), or smaller copies of the pictures: the model sees 224×224",
    "engine": "the model, which is as it should be: more workers, on GPUs of their own, are faster",
    "write": "the database: put it on a fast disk near by, or raise KOSMOGRAPH_CHUNK_SIZE",
    "": "nothing is busy all the time; the parts wait for one another, or other work had the cores",
}


@dataclass(frozen=True)
class Plan:
    """All there is to tell."""

    asked: Asked
    estimate: Estimate
    trial: Trial
    sample: Sample
    counted: bool
    """Whether the images were listed, or the user has said how many they are."""
    model: str
    deadline: datetime | None
    why_not_reused: str = ""
    """Why nothing is known of what is annotated already."""

    @property
    def device(self) -> str:
        """GPU or CPU: what the hours are of."""
        return "GPU" if self.trial.runtime.startswith("cuda") else "CPU"


def lines_of(plan: Plan) -> Iterator[str]:
    """The plan for a terminal."""
    asked, found, trial = plan.asked, plan.estimate, plan.trial
    rate = found.seconds_an_image.inverse()
    yield f"images      {asked.images:,}{'' if plan.counted else ', as you say'}{_left_out(plan.sample)}"
    if found.reused and found.reused.value:
        yield f"annotated   {_range(found.reused, _count)} of them already: these are not computed again"
    elif plan.why_not_reused:
        yield f"annotated   not looked up: {plan.why_not_reused}"
    yield f"tried       {_images(trial.settled)}{_whose(plan)} in {duration(trial.wall_s)}, by {plan.model}{_on(trial)}"
    yield f"rate        {_range(rate, _rate)} images/s of one worker{_scatter(plan)}"
    workers = f"{asked.workers} worker{'s' * (asked.workers != 1)}"
    once = f"{duration(found.startup_s)} of it to start and end"
    yield f"time        {_range(found.time_s, duration)} with {workers}, {once}"
    yield f"work        {_range(found.worker_hours, _hours)} {plan.device}-hours"
    if found.cost:
        yield f"cost        {_range(found.cost, _money)} at {asked.price:g} for an hour of a worker"
    yield f"database    {_growth(plan)}"
    yield from _failing(plan)
    yield f"limit       {LIMITS[found.limit]} ({_parts(plan)})"
    yield from _until(plan)


def document_of(plan: Plan) -> dict[str, Any]:
    """The same for a script. Seconds, bytes, shares from 0 to 1; intervals as value, low, high."""
    asked, found, trial = plan.asked, plan.estimate, plan.trial
    return {
        "images": asked.images,
        "counted": plan.counted,
        "left_out": dict(plan.sample.skipped),
        "sample": {"images": trial.settled, "seconds": trial.wall_s, "seed": SEED, "interrupted": trial.interrupted},
        "model": plan.model,
        "runtime": trial.runtime,
        "device": plan.device.lower(),
        "reused_images": _interval(found.reused),
        "images_per_s": _interval(found.seconds_an_image.inverse()),
        "rough": found.rough,
        "startup_s": found.startup_s,
        "workers": asked.workers,
        "time_s": _interval(found.time_s),
        "worker_hours": _interval(found.worker_hours),
        "price_per_hour": asked.price,
        "cost": _interval(found.cost),
        "database": {
            "kind": trial.kind,
            "bytes": found.bytes_an_image and found.bytes_an_image * asked.images,
            "bytes_per_image": found.bytes_an_image,
        },
        "failed": {"seen": sum(trial.failures.values()), "images": _interval(found.failed)},
        "failures": [
            {"code": one.code, "seen": one.seen, "images": _interval(one.images), "message": one.message}
            for one in found.failures
        ],
        "busy": found.shares._asdict(),
        "limit": found.limit or None,
        "deadline": plan.deadline.isoformat() if plan.deadline else None,
        "workers_for_deadline": found.workers_needed,
    }


def _left_out(sample: Sample) -> str:
    if not sample.skipped:
        return ""
    return f"; left out: {', '.join(f'{count:,} {why}' for why, count in sorted(sample.skipped.items()))}"


def _whose(plan: Plan) -> str:
    if plan.trial.settled >= plan.asked.images:
        return ", all of them,"
    return "" if plan.sample.whole else f" of the first {plan.sample.listed:,}"


def _on(trial: Trial) -> str:
    device = trial.runtime.partition(" ")[0]
    return f" on {device}" if device not in ("", "none") else ""


def _scatter(plan: Plan) -> str:
    if not plan.estimate.rough:
        return ""
    more = "" if plan.trial.settled >= plan.asked.images else "; --sample takes more"
    return f" (roughly: too few for a steady rate{more})"


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _growth(plan: Plan) -> str:
    each, kind = plan.estimate.bytes_an_image, plan.trial.kind
    if each is None:
        return f"too few images to tell ({kind})"
    return f"{_bytes(each * plan.asked.images)} ({_bytes(each)} an image, {kind})"


def _failing(plan: Plan) -> Iterator[str]:
    found = plan.estimate
    if not found.failures:
        upper = f", {_count(found.failed.high)} at most" if found.failed.high >= 1 else ""
        yield f"failures    none seen{upper}"
        return
    yield f"failures    {_range(found.failed, _count)}"
    width = max(len(one.code) for one in found.failures)
    for one in found.failures:
        yield f"  {one.code:<{width}}  {_range(one.images, _count)}{_again(one)}: {one.message}"


def _again(one: Failing) -> str:
    """What may pass is tried again by `annotate`, which a trial does not wait for."""
    return "" if one.code in CONTENT_CODES else " (before it is tried again)"


def _parts(plan: Plan) -> str:
    shares = plan.estimate.shares
    loading = f"{plan.trial.loaders} loader process{'es' * (plan.trial.loaders != 1)}"
    fetch, decode, engine, write = (f"{share:.0%}" for share in shares)
    return f"busy: model {engine}; {loading}: fetch {fetch}, decode {decode}; commits {write}"


def _until(plan: Plan) -> Iterator[str]:
    if plan.deadline is None:
        return
    when, needed = f"{plan.deadline:%a %H:%M}", plan.estimate.workers_needed
    if needed is None:
        yield f"deadline    {when} is too near: to start and to end alone takes {duration(plan.estimate.startup_s)}"
    else:
        many = f"{needed:,} worker{'s' * (needed != 1)}"
        pace = "roughly" if plan.estimate.rough else "at the slower end of the interval"
        yield f"deadline    {many} would be done by {when}, {pace}"


def _range(figure: Figure, tell: Any) -> str:
    """`2 h 5 min (2 h to 2 h 20 min)`; the value alone where its ends read the same."""
    value, low, high = (tell(end) for end in figure)
    return value if low == value == high else f"{value} ({low} to {high})"


def _interval(figure: Figure | None) -> dict[str, float] | None:
    return figure._asdict() if figure else None


def _count(images: float) -> str:
    return f"{images:,.0f}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.1f}" if per_s >= 1 else f"{per_s:.3g}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}" if hours < 1 else f"{hours:.1f}"


def _money(amount: float) -> str:
    return f"{amount:,.2f}"


def _bytes(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if size >= 100 or unit == 0 else f"{size:.1f} {UNITS[unit]}"
