"""What a recipe's first worker heard of the canaries, and what becomes of a job whose worker hears something else."""

import json
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, func, select

from schemas.database import Database
from schemas.ledger.bulk import VALUES, Rows, rows_where, run
from schemas.ledger.jobs import pause_within, resume_within
from schemas.tables import canaries, job_recipes, jobs, unix_now


@dataclass(frozen=True, slots=True)
class Canary:
    """What the model said of the picture of that number, token by token and as text, and what it ran on."""

    number: int
    token_ids: list[int]
    logprobs: list[float]
    raw_text: str
    runtime: str


CANARIES = Rows(
    canaries,
    ("recipe_id", "number", "token_ids", "logprobs", "raw_text", "runtime"),
    computed={"created_at": unix_now()},
)
OF_RECIPE = (
    select(*(canaries.c[name] for name in Canary.__slots__), canaries.c.created_at)
    .where(canaries.c.recipe_id == bindparam("recipe"))
    .order_by(canaries.c.number)
)
RECORDED_AT = (
    select(canaries.c.recipe_id, func.max(canaries.c.created_at))
    .where(canaries.c.recipe_id.in_(VALUES))
    .group_by(canaries.c.recipe_id)
)
FORGET = delete(canaries).where(
    canaries.c.recipe_id.in_(select(job_recipes.c.recipe_id).where(job_recipes.c.job_id == bindparam("job")))
)
NAME = select(jobs.c.name).where(jobs.c.id == bindparam("job"))


def recorded_at(database: Database, recipe_ids: Collection[int]) -> dict[int, float]:
    """When each of these recipes got its canaries, of those that have some: other ones have another time."""
    with database.ask() as connection:
        return {row[0]: row[1] for row in rows_where(connection, RECORDED_AT, recipe_ids)}


def record_canaries(
    database: Database, recipe_id: int, ours: Sequence[Canary]
) -> tuple[dict[int, Canary], float | None]:
    """The recipe's canaries by number, and when it got them: ours where nobody was there before us."""
    new = [
        (recipe_id, it.number, json.dumps(it.token_ids), json.dumps(it.logprobs), it.raw_text, it.runtime)
        for it in ours
    ]
    with database.write() as connection:
        CANARIES.insert(connection, new)
        rows = run(connection, OF_RECIPE, recipe=recipe_id).all()
    recorded = (
        Canary(number, json.loads(ids), json.loads(logprobs), *words) for number, ids, logprobs, *words, _ in rows
    )
    return {it.number: it for it in recorded}, max((at for *_, at in rows), default=None)


def pause_for_drift(database: Database, job_id: int, drift: str) -> bool:
    """running → paused, with the drift and its two remedies as the reason."""
    with database.write() as connection:
        name = shlex.quote(run(connection, NAME, job=job_id).scalar_one())
        remedy = f"mend that worker, or let what it says count from now on: kosmograph resume {name} --new-canary"
        return pause_within(connection, job_id, f"{drift}; {remedy}")


def resume_with_new_canaries(database: Database, job_id: int) -> bool:
    """paused → running. What its recipes have is forgotten, for other jobs too: what the next worker hears counts."""
    with database.write() as connection:
        resumed = resume_within(connection, job_id)
        if resumed:
            run(connection, FORGET, job=job_id)
        return resumed
