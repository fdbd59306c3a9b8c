"""Two workers with the demo model, of which one has other weights: the canaries tell them apart on any drawing."""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from sqlalchemy import text

from kosmograph import control
from schemas.database import Database
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing
from schemas.recipes import Recipe
from schemas.settings import Settings
from tests.worker.engine.conftest import BRIEF, Subject, drawing
from worker.annotator import Annotator
from worker.engine import Engine
from worker.images import LoadedImage
from worker.leases import Leases
from worker.model import Kosmos
from worker.tasks import ChunkTask

DETAILED = "<grounding>Describe this image in detail:"


class Loader:
    """Drawings, by the number in their URI."""

    def load(self, uri: str, **_: object) -> "Future[LoadedImage]":
        future: Future[LoadedImage] = Future()
        number = int(uri.rpartition("/")[2])
        future.set_result(LoadedImage(drawing(number), 224, 224, "PNG", 99, f"{number:064}", "v"))
        return future


@pytest.fixture
def job(database: Database) -> jobs.Job:
    """Four chunks of a drawing each, with two prompts."""
    recipes = [
        Recipe(task=task, prompt=prompt, model="demo", revision="r", dtype="float32", max_new_tokens=32)
        for task, prompt in (("brief", BRIEF), ("detailed", DETAILED))
    ]
    made = jobs.open_job(database, "night", recipes, listing="{}")
    listing.register(database, made, [Item(f"s3://b/{n}", "v") for n in range(4)], cursor=None, chunk_size=1)
    return made


@contextmanager
def worker(database: Database, kosmos: Kosmos, runtime: str) -> Iterator[Callable[[], jobs.Job]]:
    """A worker that does the next chunk when it is called, and tells how the job stands then."""
    leases, settings = Leases(database, runtime, lease_s=60), Settings()
    with Engine(kosmos, 4) as engine:
        annotator = Annotator(database, Loader(), engine, settings, runtime)
        task = ChunkTask(runtime, database, annotator, leases, settings, lambda error: pytest.fail(str(error)))

        def work() -> jobs.Job:
            job = jobs.find_job(database, "night")
            (departure,) = dispatch.take_pending(database, job.queue, "here", 1)
            task(chunk_id=departure.chunk_id, fence=departure.fence, images=departure.images)
            return jobs.get_job(database, job.id)

        yield work
    leases.close()


def changed(kosmos: Kosmos, change: Callable[[Any], None]) -> Kosmos:
    """The same model with something changed in its weights."""
    other = copy.copy(kosmos)
    other.model = copy.deepcopy(kosmos.model)
    with torch.no_grad():
        change(other.model)
    return other


def test_worker_with_other_weights_pauses_the_job_and_annotates_nothing(
    demo: Subject, database: Database, job: jobs.Job
) -> None:
    """Given weights that take red for blue, then the difference is shown, and `--new-canary` goes on with them."""
    red, blue = (
        demo.kosmos.tokenizer(f" {colour}", add_special_tokens=False).input_ids[-1] for colour in ("red", "blue")
    )

    def swap(model: Any) -> None:
        weight = model.text_model.lm_head.weight
        weight[[red, blue]] = weight[[blue, red]]

    with worker(database, demo.kosmos, "cpu float32") as first:
        assert (first().state, first().annotated) == ("running", 4)
    with worker(database, changed(demo.kosmos, swap), "other weights") as second:
        paused = second()
        assert (paused.state, paused.annotated) == ("paused", 4)
        said = '"<grounding> An image of<phrase> a {} ring</phrase>'
        assert paused.reason is not None
        assert f"canary 1 (brief) differs: {said.format('blue')}" in paused.reason
        assert f"(other weights) was {said.format('red')}" in paused.reason
        control.resume("night", database.url.render_as_string(hide_password=False), new_canary=True)
        assert (second().state, second().annotated) == ("running", 8)
    with database.read() as connection:
        runtimes = connection.execute(text("SELECT runtime, COUNT(*) FROM canaries GROUP BY runtime")).all()
    assert [tuple(row) for row in runtimes] == [("other weights", 8)]


def test_kernel_that_computes_a_little_wrong_is_seen_though_it_says_the_same(
    demo: Subject, database: Database, job: jobs.Job
) -> None:
    """Given attention over the image that is 3% too flat, then the words are the same and the probabilities are not."""

    def scale(model: Any) -> None:
        for layer in model.vision_model.model.encoder.layers:
            layer.self_attn.q_proj.weight.mul_(0.97)

    with worker(database, demo.kosmos, "cpu float32") as first:
        first()
    with worker(database, changed(demo.kosmos, scale), "other kernel") as second:
        paused = second()
    assert paused.state == "paused"
    assert paused.reason is not None
    assert "has probability" in paused.reason


def test_worker_in_16_bits_does_not_drift_from_one_in_float32(demo: Subject, database: Database, job: jobs.Job) -> None:
    """A CPU that would emulate a recipe's bfloat16 computes in float32, beside GPUs that do not."""
    with database.write() as connection:
        connection.execute(text("""UPDATE recipes SET spec = REPLACE(spec, '"float32"', '"bfloat16"')"""))
    low = changed(demo.kosmos, lambda model: model.to(torch.bfloat16))
    low.dtype = torch.bfloat16
    with worker(database, demo.kosmos, "cpu float32") as first, worker(database, low, "bfloat16") as second:
        first()
        assert (second().state, second().annotated) == ("running", 6)
