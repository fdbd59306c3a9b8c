"""The canaries of a recipe: asked once, recorded once, compared by every worker, and what becomes of a drift."""

import hashlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from kosmograph import control
from schemas.database import Database
from schemas.errors import Code, Drift, EngineBroken, EngineClosed, PermanentFailure
from schemas.items import Item
from schemas.ledger import canaries, dispatch, jobs, listing
from schemas.recipes import TASKS, Recipe, field_of
from schemas.settings import Settings
from tests.worker.test_tasks import Loader
from worker import canary as module
from worker.annotator import Annotator
from worker.canary import MOST_TOKENS, Canaries, question
from worker.canary_pictures import canary_pictures
from worker.generation import Generation, Pixels, Request
from worker.leases import Leases
from worker.null_engine import SNOWMAN, VOCABULARY
from worker.tasks import ChunkTask

HASHES = {
    1: "f701781fe7430d90b97827e341bb4ddc691c6aadf9a8b481c87184c6b1c61e79",
    2: "92ae802bb43482992a96f8ae79db1665c31910457e488445c368839d55febc5a",
    3: "00028032319d39da41a10ef00bcf3cfe9971810ce0b0882b28136f61e6ac1953",
    4: "7df4c1635e6001991f85ac479be0e029f026287a3d97c21b3c0d020f6a3be802",
}
"""Should one of them change, give the new picture another number: what databases hold is of the old one."""

BRIEF = Recipe(task="brief", prompt="<grounding>An image of", model="m", revision="r", dtype="float32")
DETAILED = BRIEF.model_copy(update={"task": "detailed", "prompt": "<grounding>Describe this image in detail:"})
OTHER = replace(SNOWMAN, raw_text=SNOWMAN.raw_text.replace("snowman", "snowdrift"), token_ids=[7, 8, 2])


def number_of(pixels: Pixels) -> int | None:
    """Which canary it is."""
    return next((number for number, picture in canary_pictures().items() if picture is pixels), None)


@dataclass
class Voice:
    """An engine that says of each canary what it is told to, and of images what the null engine says."""

    says: dict[int, Generation | Exception] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    images: int = 0
    hangs: bool = False
    vocabulary = VOCABULARY

    def submit(self, request: Request) -> "Future[Generation]":
        future: Future[Generation] = Future()
        number = number_of(request.pixels)
        if number is None:
            self.images += 1
            future.set_result(SNOWMAN)
            return future
        self.asked.append(request)
        said = self.says.get(number, SNOWMAN)
        if self.hangs:
            future.set_running_or_notify_cancel()
        elif isinstance(said, Exception):
            future.set_exception(said)
        else:
            future.set_result(said)
        return future


class Bench:
    """A job of two images, and workers for it, each with a voice of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.faults: list[BaseException] = []
        self._leases: list[Leases] = []
        self.job = jobs.open_job(database, "night", [BRIEF], listing="{}")
        items = [Item(f"s3://b/{name}", "v") for name in "12"]
        listing.register(database, self.job, items, cursor=None, chunk_size=1)

    def worker(self, engine: Any, runtime: str) -> ChunkTask:
        leases = Leases(self.database, runtime, lease_s=60)
        self._leases.append(leases)
        settings = Settings()
        annotator = Annotator(self.database, Loader(), engine, settings, runtime)
        return ChunkTask(f"of-{runtime}", self.database, annotator, leases, settings, self.faults.append)

    def message(self) -> dict[str, Any]:
        """The next chunk on its way, as its message says."""
        (departure,) = dispatch.take_pending(self.database, self.job.queue, "here", 1)
        return {"chunk_id": departure.chunk_id, "fence": departure.fence, "images": departure.images}

    @property
    def now(self) -> jobs.Job:
        return jobs.get_job(self.database, self.job.id)

    @property
    def chunks(self) -> list[tuple[Any, ...]]:
        return self.ask("SELECT state, crashes FROM chunks ORDER BY state")

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def close(self) -> None:
        for leases in self._leases:
            leases.close()


@pytest.fixture
def bench(database: Database) -> Iterator[Bench]:
    made = Bench(database)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)


def never() -> bool:
    return False


def test_pictures_are_the_same_to_the_bit() -> None:
    pictures = canary_pictures()
    assert {number: hashlib.sha256(it.tobytes()).hexdigest() for number, it in pictures.items()} == HASHES
    for it in pictures.values():
        assert (it.shape, it.dtype, it.flags.writeable) == ((224, 224, 3), np.uint8, False)


def test_first_workers_answers_are_recorded(bench: Bench) -> None:
    bench.worker(Voice({2: OTHER}), "first")(**bench.message())
    rows = bench.ask("SELECT number, raw_text, runtime, token_ids, logprobs FROM canaries ORDER BY number")
    assert [(number, said) for number, said, *_ in rows] == [
        (number, (OTHER if number == 2 else SNOWMAN).raw_text) for number in (1, 2, 3, 4)
    ]
    assert {row[2] for row in rows} == {"first"}
    assert rows[1][3:] == ("[7, 8, 2]", "[-0.25, -0.25, -0.01]")
    assert sorted(bench.chunks) == [("done", 0), ("pending", 0)]


def test_worker_is_asked_once_for_each_recipe(bench: Bench) -> None:
    voice = Voice()
    worker = bench.worker(voice, "first")
    for _ in range(2):
        worker(**bench.message())
    assert [number_of(request.pixels) for request in voice.asked] == [1, 2, 3, 4]
    assert voice.images == 2
    assert bench.now.state == "running"


def test_canary_is_asked_as_the_recipe_asks_and_cut_short(bench: Bench) -> None:
    long = {"max_new_tokens": 192, "min_new_tokens": 50, "no_repeat_ngram_size": 3, "constrained": True}
    long |= {"verify": "mirror-1"}
    short = DETAILED.model_copy(update={"max_new_tokens": 7})
    voice = Voice()
    with bench.database.write() as connection:
        first, second = jobs.store_recipes(connection, [BRIEF.model_copy(update=long), short])
    recipes = {first: BRIEF.model_copy(update=long), second: short}
    assert Canaries(bench.database, voice, "here").agree(recipes, never)
    one, other = voice.asked[0], voice.asked[4]
    assert (one.prompt, one.max_new_tokens, one.min_new_tokens) == (BRIEF.prompt, MOST_TOKENS, MOST_TOKENS)
    assert (one.no_repeat_ngram_size, one.constrained, one.follow_up) == (3, True, None)
    assert (other.prompt, other.max_new_tokens) == (DETAILED.prompt, 7)


@pytest.mark.parametrize("field", sorted({field_of(task) for task in TASKS} - {""} | {"prompt"}))
def test_canary_brings_a_value_of_its_own_where_items_do(field: str) -> None:
    template = next((template for task, template in TASKS.items() if field_of(task) == field), "{prompt}")
    recipe = Recipe(task="any", prompt=template, input=field, model="m", revision="r", dtype="float32")
    prompts = {question(recipe, pixels).prompt for pixels in canary_pictures().values()}
    assert len(prompts) == 1
    assert "{" not in prompts.pop()


def test_drift_pauses_the_job_with_the_difference_and_nobody_is_blamed(bench: Bench) -> None:
    bench.worker(Voice(), "cpu-then")(**bench.message())
    voice = Voice({2: OTHER})
    bench.worker(voice, "cuda-now")(**bench.message())
    assert voice.images == 0
    assert bench.chunks == [("done", 0), ("pending", 0)]
    assert (bench.now.state, bench.now.annotated, bench.faults) == ("paused", 1, [])
    assert bench.now.reason == (
        'on worker of-cuda-now canary 2 (brief) differs: "<grounding> An image of<phrase> a snowdrift</phrase><object>'
        '<patch_index_0044><patch_i…" (cuda-now) was "<grounding> An image of<phrase> a snowman</phrase><object>'
        '<patch_index_0044><patch_ind…" (cpu-then); mend that worker, or let what it says count from now on: '
        "kosmograph resume night --new-canary"
    )


def test_job_that_is_resumed_as_it_is_pauses_again_without_asking_the_model_again(bench: Bench) -> None:
    bench.worker(Voice(), "then")(**bench.message())
    voice = Voice({4: OTHER})
    worker = bench.worker(voice, "now")
    worker(**bench.message())
    assert control.resume("night", _url(bench)) == 0
    assert bench.now.reason is None
    worker(**bench.message())
    assert bench.now.state == "paused"
    assert "canary 4 (brief) differs" in str(bench.now.reason)
    assert (len(voice.asked), voice.images) == (4, 0)


def test_mended_worker_goes_on_after_a_plain_resume(bench: Bench) -> None:
    bench.worker(Voice(), "then")(**bench.message())
    bench.worker(Voice({4: OTHER}), "now")(**bench.message())
    control.resume("night", _url(bench))
    bench.worker(Voice(), "mended")(**bench.message())
    assert (bench.now.state, bench.now.annotated) == ("running", 2)


def test_new_canary_is_that_of_the_next_worker_and_binds_those_of_before(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a worker that agreed with the old canary, when the new one counts, then it is the one that differs."""
    before = bench.worker(Voice(), "then")
    before(**bench.message())
    after = bench.worker(Voice({1: OTHER}), "now")
    after(**bench.message())
    control.resume("night", _url(bench), new_canary=True)
    assert "what the next worker says of the canaries counts from now on" in capsys.readouterr().out
    listing.register(bench.database, bench.job, [Item("s3://b/3", "v")], cursor=None, chunk_size=1)
    after(**bench.message())
    assert (bench.now.state, bench.now.annotated) == ("running", 2)
    assert bench.ask("SELECT DISTINCT runtime FROM canaries") == [("now",)]
    before(**bench.message())
    assert (bench.now.state, bench.now.annotated) == ("paused", 2)
    assert "on worker of-then canary 1 (brief) differs" in str(bench.now.reason)


def test_new_canary_of_a_job_that_is_not_paused_is_refused(bench: Bench) -> None:
    bench.worker(Voice(), "then")(**bench.message())
    with pytest.raises(control.SetupError, match="only a paused one can be resumed"):
        control.resume("night", _url(bench), new_canary=True)
    assert bench.ask("SELECT COUNT(*) FROM canaries") == [(4,)]


def test_model_that_fails_where_it_had_an_answer_has_drifted(bench: Bench) -> None:
    bench.worker(Voice(), "then")(**bench.message())
    nan = PermanentFailure(Code.MODEL_ERROR, "the model computed no numbers (NaN)")
    bench.worker(Voice({3: nan}), "now")(**bench.message())
    assert bench.now.state == "paused"
    assert "canary 3 (brief) differs: it fails with model_error: the model computed no numbers" in str(bench.now.reason)


def test_picture_on_which_the_model_has_always_failed_says_nothing(bench: Bench) -> None:
    """What fails on every image fails image by image, with its code."""
    nan = PermanentFailure(Code.MODEL_ERROR, "the prompt cannot be read")
    voice = Voice(dict.fromkeys((1, 2, 3, 4), nan))
    worker = bench.worker(voice, "then")
    for _ in range(2):
        worker(**bench.message())
    assert (bench.now.state, bench.now.annotated, len(voice.asked)) == ("running", 2, 4)
    assert bench.ask("SELECT COUNT(*) FROM canaries") == [(0,)]


def test_engine_that_is_closed_over_a_canary_leaves_the_chunk(bench: Bench) -> None:
    bench.worker(Voice({2: EngineClosed()}), "then")(**bench.message())
    assert (bench.now.state, bench.chunks) == ("running", [("pending", 0), ("pending", 0)])
    assert bench.ask("SELECT COUNT(*) FROM canaries") == [(0,)]


def test_stop_over_a_canary_leaves_the_chunk(bench: Bench) -> None:
    voice = Voice(hangs=True)
    worker = bench.worker(voice, "then")
    message = bench.message()
    thread = threading.Thread(target=lambda: worker(**message))
    thread.start()
    while not voice.asked:
        thread.join(0.01)
    worker.stopping.set()
    thread.join(20)
    assert not thread.is_alive()
    assert (bench.now.state, bench.chunks) == ("running", [("pending", 0), ("pending", 0)])


def test_model_that_fails_on_everything_stops_the_worker(bench: Bench) -> None:
    broken = EngineBroken("the model fails on every image")
    bench.worker(Voice({1: broken}), "then")(**bench.message())
    assert bench.faults == [broken]
    assert (bench.now.state, bench.chunks) == ("running", [("pending", 0), ("pending", 0)])


def test_chunks_that_begin_side_by_side_ask_once(bench: Bench) -> None:
    """Given a first chunk whose canary takes its time, then the second waits for it and asks nothing itself."""
    begun, go = threading.Event(), threading.Event()

    class Slow(Voice):
        def submit(self, request: Request) -> "Future[Generation]":
            begun.set()
            assert go.wait(30)
            return super().submit(request)

    voice = Slow()
    worker = bench.worker(voice, "then")
    threads = [threading.Thread(target=worker, kwargs=bench.message()) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert [number_of(request.pixels) for request in voice.asked] == [1, 2, 3, 4]
    assert bench.chunks == [("done", 0), ("done", 0)]


def test_of_workers_that_meet_a_recipe_at_once_one_is_the_first(bench: Bench) -> None:
    """Given two that differ and ask at the same time, then one has its answers recorded and the other has drifted."""
    together = threading.Barrier(2)

    class Even(Voice):
        def submit(self, request: Request) -> "Future[Generation]":
            together.wait(30)
            return super().submit(request)

    recipes = _recipes(bench)
    voices = {"one": Even(), "other": Even({3: OTHER})}
    ends: dict[str, object] = {}

    def ask(name: str) -> None:
        try:
            ends[name] = Canaries(bench.database, voices[name], name).agree(recipes, never)
        except Drift as drift:
            ends[name] = drift

    threads = [threading.Thread(target=ask, args=(name,)) for name in voices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(type(end).__name__ for end in ends.values()) == ["Drift", "bool"]
    ((first,),) = bench.ask("SELECT DISTINCT runtime FROM canaries")
    assert ends[first] is True


def test_database_that_is_away_for_a_moment_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, record = itertools.count(), canaries.record_canaries

    def away_at_first(*arguments: Any) -> Any:
        if next(calls) == 0:
            raise OperationalError("", {}, ConnectionError("the connection is lost"))
        return record(*arguments)

    monkeypatch.setattr(module, "record_canaries", away_at_first)
    assert Canaries(bench.database, Voice(), "here").agree(_recipes(bench), never)
    assert bench.ask("SELECT COUNT(*) FROM canaries") == [(4,)]


def test_text_that_no_database_stores_is_no_drift_from_itself(bench: Bench) -> None:
    odd = replace(SNOWMAN, raw_text="a \0 and half a pair \ud800")
    voice = Voice(dict.fromkeys((1, 2, 3, 4), odd))
    for name in ("one", "other"):
        assert Canaries(bench.database, voice, name).agree(_recipes(bench), never)


def test_jobs_name_is_quoted_for_a_shell(bench: Bench) -> None:
    job = jobs.open_job(bench.database, "a night's work", [BRIEF], listing="{}")
    canaries.pause_for_drift(bench.database, job.id, "canary 1 differs")
    reason = str(jobs.get_job(bench.database, job.id).reason)
    assert reason.endswith("""kosmograph resume 'a night'"'"'s work' --new-canary""")


def _recipes(bench: Bench) -> dict[int, Recipe]:
    with bench.database.read() as connection:
        return jobs.recipes_of(connection, bench.job.id)


def _url(bench: Bench) -> str:
    return bench.database.url.render_as_string(hide_password=False)
