"""The command line as a process, and a database with something in it."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from schemas.database import Database
from schemas.errors import Code
from schemas.grounding import parse
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, settlement, work
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Content, EntityScores, Failure, Settled
from tests.pipeline.conftest import Run, here

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `kosmograph` with these arguments, in the test's folder, with these variables besides."""

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "kosmograph", *arguments],
            cwd=tmp_path,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def cli_here(tmp_path: Path) -> Callable[..., Run]:
    """The same in this process, for a command that only looks or is refused."""
    return partial(here, tmp_path)


@pytest.fixture
def new_job() -> Callable[..., jobs.Job]:
    """A finished job: of its images the first one has failed, and each other has a caption with a box."""

    def make(database: Database, name: str = "job", images: int = 2, caption: str = "a snowman") -> jobs.Job:
        recipe = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
        job = jobs.open_job(database, name, [recipe], listing="{}")
        items = [Item(f"s3://{name}/{number}.jpg", "v") for number in range(images)]
        listing.register(database, job, items, cursor=None, chunk_size=64)
        listing.finish_listing(database, job)
        (departure,) = dispatch.take_pending(database, job.queue, "here", 1, job.id)
        claim = work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=60)
        assert claim
        (recipe_id,) = claim.recipes
        raw = f"An image of<phrase> {caption}</phrase><object><patch_index_0044><patch_index_0863></object>"
        annotation = Annotation(raw, parse(raw), [EntityScores(0.75, [0.5])], "stop", 3, -0.5, "here")
        failure = Failure(Code.TRUNCATED, f"{caption} is cut off")
        settled = [
            Settled(
                item,
                "v",
                Content(f"{name}{n}".rjust(64, "0"), 640, 480, "JPEG", 99) if n else None,
                {recipe_id: annotation if n else failure},
            )
            for n, item in enumerate(claim.items)
        ]
        assert settlement.complete(database, claim, Completion(settled), breaker_images=100)
        jobs.finish_jobs(database)
        return job

    return make
