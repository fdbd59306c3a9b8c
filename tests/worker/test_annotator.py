"""What becomes of a chunk in a worker: whatever loader and model do, each item is settled or comes again."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from schemas.database import Database
from schemas.errors import Code, EngineBroken, EngineClosed, PermanentFailure, SetupError, TransientFailure
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing
from schemas.ledger.settlement import complete
from schemas.ledger.work import Claim, claim_chunk
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Failure, Reuse
from schemas.settings import Settings
from worker import annotator as module
from worker import flow
from worker.annotator import Annotator
from worker.canary import Canaries
from worker.generation import Generation, Request, Vocabulary
from worker.images import LoadedImage
from worker.null_engine import SNOWMAN, VOCABULARY

RECIPES = [Recipe(task="brief", prompt=f"<grounding>{n}", model="null", revision="r", dtype="float32") for n in "abc"]


def loaded(content: str) -> LoadedImage:
    pixels = np.zeros((224, 224, 3), np.uint8)
    return LoadedImage(pixels, 640, 480, "JPEG", 1000, content.ljust(64, "0"), f"version of {content}")


@dataclass
class Fault:
    """What a fake loader or engine does with one call."""

    kind: str  # answers, fails, crashes, hangs, starts and hangs, breaks
    error: BaseException | None = None

    def future(self, answer: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        if self.kind == "hangs":
            return future
        future.set_running_or_notify_cancel()
        if self.error is not None:
            future.set_exception(self.error)
        elif self.kind == "answers":
            future.set_result(answer)
        return future


@dataclass
class FakeLoader:
    """Loads each URI as the plan says; without a plan, its content is its name."""

    plan: dict[str, Fault] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, bool]] = field(default_factory=list)

    def load(self, uri: str, *, exact: bool = False, **_: object) -> "Future[LoadedImage]":
        self.calls.append((uri, exact))
        return self.plan.get(uri, ANSWERS).future(loaded(self.contents.get(uri, uri[-4:])))


@dataclass
class FakeEngine:
    """Answers by the plan, in turn."""

    plan: Sequence[Fault] = ()
    vocabulary: Vocabulary = VOCABULARY
    requests: list[Request] = field(default_factory=list)

    def submit(self, request: Request) -> "Future[Generation]":
        self.requests.append(request)
        faults = itertools.cycle(self.plan or [ANSWERS])
        return next(itertools.islice(faults, len(self.requests) - 1, None)).future(SNOWMAN)


ANSWERS, HANGS, STARTS = Fault("answers"), Fault("hangs"), Fault("starts and hangs")


def transient(code: Code = Code.TIMEOUT) -> Fault:
    return Fault("fails", TransientFailure(code, "later, perhaps"))


def permanent(code: Code = Code.TRUNCATED) -> Fault:
    return Fault("fails", PermanentFailure(code, "never", "the version read"))


@pytest.fixture(autouse=True)
def no_canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have tests of their own; here engines answer by a plan."""
    monkeypatch.setattr(Canaries, "agree", lambda *_: True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_S", 0.005)
    monkeypatch.setattr(flow, "GROUP_S", 0.005)
    monkeypatch.setattr(flow, "DRAIN_S", 0.01)


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Any:
    """One that is only read here: SQLite is enough."""
    path = tmp_path / "kosmograph.db"
    path.write_bytes(sqlite_template.read_bytes())
    place = Database(f"sqlite:///{path}")
    yield place
    place.close()


@pytest.fixture
def chunk(database: Database) -> Callable[..., Claim]:
    """A claimed chunk of these URIs."""
    numbers = itertools.count()

    def make(*uris: str, recipes: Sequence[Recipe] = RECIPES[:1], tries: int = 0) -> Claim:
        job = jobs.open_job(database, f"job {next(numbers)}", recipes, listing="{}")
        listing.register(database, job, [Item(uri, "v") for uri in uris], cursor=None, chunk_size=64)
        (departure,) = dispatch.take_pending(database, job.queue, "here", 9, job.id)
        claim = claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=60)
        assert claim
        return replace(claim, tries=tries)

    return make


def annotate(
    database: Database,
    claim: Claim,
    loader: Any = None,
    engine: Any = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Completion:
    settings = Settings(max_tries=3, retry_base_s=8.0)
    return Annotator(database, loader or FakeLoader(), engine or FakeEngine(), settings, "here").annotate(
        claim, stopped
    )


def accounted(completion: Completion) -> Counter[Item]:
    items = Counter(one.item for one in completion.settled)
    for later in completion.later:
        items.update(later.items)
    return items


def test_chunk_is_annotated_under_each_recipe(database: Database, chunk: Callable[..., Claim]) -> None:
    claim = chunk("s3://b/0001", "s3://b/0002", recipes=RECIPES)
    completion = annotate(database, claim)
    assert not completion.later
    for one in completion.settled:
        assert one.results.keys() == claim.recipes.keys()
        assert all(isinstance(result, Annotation) for result in one.results.values())
        assert one.version == f"version of {one.item.uri[-4:]}"
    annotation = completion.settled[0].results[1]
    assert isinstance(annotation, Annotation)
    assert annotation.grounding.caption == "An image of a snowman."
    assert annotation.runtime == "here"
    assert complete(database, claim, completion, breaker_images=9)


def test_chunk_is_annotated_with_room_for_a_single_image(database: Database, chunk: Callable[..., Claim]) -> None:
    claim = chunk(*(f"s3://b/{number:04}" for number in range(20)), recipes=RECIPES)
    tight = Annotator(database, FakeLoader(), FakeEngine(), Settings(prefetch_bytes=1), "here")
    assert accounted(tight.annotate(claim)) == Counter(claim.items)
    assert tight.budget.free == 1


def test_prompt_and_limits_of_the_recipe_reach_the_engine(database: Database, chunk: Callable[..., Claim]) -> None:
    recipe = RECIPES[0].model_copy(update={"max_new_tokens": 7, "no_repeat_ngram_size": 3, "preprocessing": "exact-1"})
    loader, engine = FakeLoader(), FakeEngine()
    annotate(database, chunk("s3://b/0001", recipes=[recipe]), loader, engine)
    (request,) = engine.requests
    assert (request.prompt, request.max_new_tokens, request.no_repeat_ngram_size) == (recipe.prompt, 7, 3)
    assert loader.calls == [("s3://b/0001", True)]


def test_same_bytes_are_computed_once(database: Database, chunk: Callable[..., Claim]) -> None:
    engine = FakeEngine()
    completion = annotate(
        database,
        chunk("s3://b/0001", "s3://b/0002", recipes=RECIPES[:2]),
        FakeLoader(contents={"s3://b/0001": "same", "s3://b/0002": "same"}),
        engine,
    )
    assert len(completion.settled) == 2
    assert len(engine.requests) == 2  # one a recipe


def test_uri_twice_in_a_chunk_is_loaded_once_and_settled_twice(database: Database, chunk: Callable[..., Claim]) -> None:
    claim, loader = chunk("s3://b/0001", "s3://b/0001"), FakeLoader()
    completion = annotate(database, claim, loader)
    assert len(loader.calls) == 1
    assert accounted(completion) == Counter(claim.items)
    assert complete(database, claim, completion, breaker_images=9)


def test_what_is_annotated_already_is_reused(database: Database, chunk: Callable[..., Claim]) -> None:
    first = chunk("s3://b/0001", recipes=RECIPES[:1])
    complete(database, first, annotate(database, first), breaker_images=9)
    second, engine = chunk("s3://other/0001", recipes=RECIPES[:2]), FakeEngine()
    (one,) = annotate(database, second, engine=engine).settled
    assert sorted(type(result).__name__ for result in one.results.values()) == ["Annotation", "Reuse"]
    assert len(engine.requests) == 1
    assert Reuse(1) in one.results.values()


def test_permanent_failure_is_settled_for_each_recipe_with_the_version_read(
    database: Database, chunk: Callable[..., Claim]
) -> None:
    loader = FakeLoader(
        {"s3://b/0001": permanent(), "s3://b/0002": Fault("fails", PermanentFailure(Code.NOT_FOUND, "no"))}
    )
    bad, gone, good = annotate(
        database, chunk("s3://b/0001", "s3://b/0002", "s3://b/0003", recipes=RECIPES), loader
    ).settled
    assert list(bad.results.values()) == [Failure(Code.TRUNCATED, "never")] * 3
    assert (bad.version, gone.version, bad.content) == ("the version read", "v", None)
    assert all(isinstance(result, Annotation) for result in good.results.values())


def test_transient_failures_come_again_by_code_with_growing_pauses(
    database: Database, chunk: Callable[..., Claim]
) -> None:
    loader = FakeLoader(
        {"s3://b/0001": transient(), "s3://b/0002": transient(Code.THROTTLED), "s3://b/0003": transient()}
    )
    claim = chunk("s3://b/0001", "s3://b/0002", "s3://b/0003", "s3://b/0004", tries=1)
    completion = annotate(database, claim, loader)
    assert [one.item.uri for one in completion.settled] == ["s3://b/0004"]
    again = {later.code: later for later in completion.later}
    assert [item.uri[-1] for item in again[Code.TIMEOUT].items] == ["1", "3"]
    assert [item.uri[-1] for item in again[Code.THROTTLED].items] == ["2"]
    assert all(later.tries == 2 and 8.0 <= later.wait_s <= 24.0 for later in completion.later)  # 8 s × 2 ± half


def test_transient_failure_at_the_limit_of_tries_is_recorded(database: Database, chunk: Callable[..., Claim]) -> None:
    completion = annotate(database, chunk("s3://b/0001", tries=2), FakeLoader({"s3://b/0001": transient()}))
    assert not completion.later
    assert list(completion.settled[0].results.values()) == [Failure(Code.TIMEOUT, "later, perhaps")]


def test_failure_of_one_recipe_is_that_outcome_alone(database: Database, chunk: Callable[..., Claim]) -> None:
    engine = FakeEngine([ANSWERS, Fault("fails", PermanentFailure(Code.MODEL_ERROR, "no numbers"))])
    (one,) = annotate(database, chunk("s3://b/0001", recipes=RECIPES[:2]), engine=engine).settled
    first, second = one.results.values()
    assert isinstance(first, Annotation)
    assert second == Failure(Code.MODEL_ERROR, "no numbers")


def test_unforeseen_error_of_the_loader_is_that_image_alone(database: Database, chunk: Callable[..., Claim]) -> None:
    loader = FakeLoader({"s3://b/0001": Fault("crashes", RuntimeError("what is this"))})
    bad, good = annotate(database, chunk("s3://b/0001", "s3://b/0002"), loader).settled
    assert list(bad.results.values()) == [Failure(Code.INTERNAL, "RuntimeError: what is this")]
    assert isinstance(next(iter(good.results.values())), Annotation)


@pytest.mark.parametrize("error", [EngineBroken("no memory"), SetupError("no process comes up")])
def test_fault_of_the_worker_is_no_images_failure(
    database: Database, chunk: Callable[..., Claim], error: SetupError
) -> None:
    loader = FakeLoader({"s3://b/0001": Fault("breaks", error)} if type(error) is SetupError else {})
    engine = FakeEngine([ANSWERS, Fault("breaks", error)])
    with pytest.raises(type(error)):
        annotate(database, chunk("s3://b/0001", "s3://b/0002"), loader, engine)


def test_database_that_is_away_for_a_moment_is_waited_for(
    database: Database, chunk: Callable[..., Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, calls, find = chunk("s3://b/0001"), list[int](), module.find_annotations

    def away_first(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("", {}, Exception("the connection is lost"))
        return find(*arguments)

    monkeypatch.setattr(module, "find_annotations", away_first)
    assert len(annotate(database, claim).settled) == 1


def test_stop_before_anything_is_loaded_leaves_the_whole_chunk(database: Database, chunk: Callable[..., Claim]) -> None:
    claim, engine = chunk("s3://b/0001", "s3://b/0002", tries=1), FakeEngine()
    loader = FakeLoader({uri.uri: HANGS for uri in claim.items})
    completion = annotate(database, claim, loader, engine, stopped=lambda: True)
    assert not completion.settled
    assert [(later.tries, later.code) for later in completion.later] == [(1, None)]
    assert not engine.requests


def test_stop_settles_what_is_finished_and_leaves_the_rest(database: Database, chunk: Callable[..., Claim]) -> None:
    claim = chunk("s3://b/0001", "s3://b/0002", "s3://b/0003", "s3://b/0004")
    loader = FakeLoader({"s3://b/0001": permanent()})
    engine = FakeEngine([ANSWERS, HANGS, STARTS])
    completion = annotate(database, claim, loader, engine, stopped=lambda: len(engine.requests) == 3)
    assert [one.item.uri[-1] for one in completion.settled] == ["1", "2"]
    assert [item.uri[-1] for later in completion.later for item in later.items] == ["3", "4"]


def test_stop_waits_a_moment_for_what_the_model_has_begun(
    database: Database, chunk: Callable[..., Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "DRAIN_S", 30.0)
    begun: Future[Generation] = Future()
    begun.set_running_or_notify_cancel()

    class Slow(FakeEngine):
        def submit(self, request: Request) -> "Future[Generation]":
            return begun

    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        if len(asked) == 2:  # the model answers during the drain
            begun.set_result(SNOWMAN)
        return len(asked) > 1

    assert len(annotate(database, chunk("s3://b/0001"), engine=Slow(), stopped=stopped).settled) == 1


def test_engine_that_was_closed_leaves_its_images(database: Database, chunk: Callable[..., Claim]) -> None:
    engine = FakeEngine([Fault("closed", EngineClosed())])
    completion = annotate(database, chunk("s3://b/0001"), engine=engine)
    assert not completion.settled
    assert len(completion.later) == 1


LOADS = [ANSWERS, ANSWERS, transient(), transient(Code.STORAGE_UNAVAILABLE), permanent(), HANGS, STARTS]
LOADS += [Fault("crashes", ValueError("odd"))]
GENERATIONS = [ANSWERS, ANSWERS, HANGS, STARTS, Fault("closed", EngineClosed())]
GENERATIONS += [Fault("fails", PermanentFailure(Code.MODEL_ERROR, "no numbers"))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loads=st.lists(st.tuples(st.sampled_from(LOADS), st.sampled_from("pqr")), min_size=1, max_size=6),
    generations=st.lists(st.sampled_from(GENERATIONS), min_size=1, max_size=6),
    repeat=st.booleans(),
    recipes=st.integers(1, 3),
    tries=st.integers(0, 2),
    stop_after=st.integers(1, 6),
)
def test_every_item_is_accounted_for_whatever_happens(
    database: Database,
    chunk: Callable[..., Claim],
    loads: list[tuple[Fault, str]],
    generations: list[Fault],
    repeat: bool,
    recipes: int,
    tries: int,
    stop_after: int,
) -> None:
    uris = [f"s3://b/{number:04}" for number in range(len(loads))]
    claim = chunk(*uris, *(uris[:1] if repeat else []), recipes=RECIPES[:recipes], tries=tries)
    loader = FakeLoader(
        {uri: fault for uri, (fault, _) in zip(uris, loads, strict=True)},
        {uri: content for uri, (_, content) in zip(uris, loads, strict=True)},
    )
    looks = itertools.count()
    completion = annotate(database, claim, loader, FakeEngine(generations), stopped=lambda: next(looks) >= stop_after)
    assert accounted(completion) == Counter(claim.items)
    assert all(one.results.keys() == claim.recipes.keys() for one in completion.settled)
    assert all(later.tries <= 2 for later in completion.later)
    assert complete(database, claim, completion, breaker_images=1000)
