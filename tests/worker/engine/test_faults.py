"""What fails, fails alone; what cannot go on says so to everyone."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import Code, EngineBroken, PermanentFailure
from worker.engine import Engine
from worker.runner import Runner
from worker.scheduler import Plan

TIMEOUT_S = 60
BLACK = np.zeros((224, 224, 3), np.uint8)
BRIEF = "<grounding>An image of"


def is_black(images: torch.Tensor) -> torch.Tensor:
    return images.amax((1, 2, 3)) < -1.4


def fail_on_black(images: torch.Tensor) -> None:
    if is_black(images).any():
        raise RuntimeError("a black image\nwith a trace")


def nan_for_black(images: torch.Tensor) -> torch.Tensor:
    return torch.where(is_black(images)[:, None, None, None], torch.nan, images)


def with_black(subject: Any, count: int, places: set[int]) -> list[Any]:
    requests = [subject.request(seed) for seed in range(count)]
    return [
        type(request)(BLACK, request.prompt, 24) if seed in places else request for seed, request in enumerate(requests)
    ]


def check_all_but(subject: Any, requests: list[Any], futures: list[Any], failing: set[int], words: str) -> None:
    for index, (request, future) in enumerate(zip(requests, futures, strict=True)):
        if index in failing:
            with pytest.raises(PermanentFailure, match=words) as failure:
                future.result(TIMEOUT_S)
            assert failure.value.code is Code.MODEL_ERROR
        else:
            subject.check([request], [future.result(TIMEOUT_S)])


@pytest.fixture
def while_running(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`while_running(request, act)`: before every decode with that request in a slot, `act` is called."""

    def arrange(request: Any, act: Callable[[], None]) -> None:
        prefill, decode, collect, forget = Runner.prefill, Runner.decode, Runner.collect, Runner.forget
        slots: set[int] = set()

        def watch_prefill(runner: Runner, plan: Plan) -> None:
            slots.difference_update(slot for _, slot in plan.rows)
            slots.update(slot for row, slot in plan.rows if row.request is request)
            prefill(runner, plan)

        def watch_decode(runner: Runner, rules: Any) -> None:
            if slots:
                act()
            decode(runner, rules)

        def watch_collect(runner: Runner) -> Any:
            ended = collect(runner)
            slots.difference_update(ended)
            return ended

        def watch_forget(runner: Runner, those: Any) -> None:
            slots.difference_update(those)
            forget(runner, those)

        monkeypatch.setattr(Runner, "prefill", watch_prefill)
        monkeypatch.setattr(Runner, "decode", watch_decode)
        monkeypatch.setattr(Runner, "collect", watch_collect)
        monkeypatch.setattr(Runner, "forget", watch_forget)

    return arrange


def fails(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: Any) -> None:
        raise error

    return fail


# ---- one of them


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((224, 224, 3), np.nan),
        np.zeros((224, 224), np.uint8),
        np.zeros((0, 224, 3), np.uint8),
        np.zeros((3, 224, 224), np.uint8),
        None,
    ],
    ids=["floats", "grey", "empty", "planes", "none"],
)
def test_pixels_of_another_kind_fail_alone(rough: Any, pixels: Any) -> None:
    sound = rough.request(0)
    with Engine(rough.kosmos, 4) as engine:
        futures = [engine.submit(one) for one in (sound, type(sound)(pixels, BRIEF, 2), rough.request(1))]
        with pytest.raises(PermanentFailure, match="not uint8") as failure:
            futures[1].result(TIMEOUT_S)
        assert failure.value.code is Code.INTERNAL
        rough.check([sound], [futures[0].result(TIMEOUT_S)])


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "words"),
    [
        (BRIEF, 442, "71 tokens of prompt and 442 new ones are more than the model's 512 positions"),
        ("a b " * 300, 1, "512 positions; shorten the prompt, or lower --max-new-tokens"),
        ("\ud800", 1, "read"),
    ],
    ids=["limit", "prompt", "surrogate"],
)
def test_prompt_that_the_model_cannot_take_fails_alone(
    rough: Any, prompt: str, max_new_tokens: int, words: str
) -> None:
    requests = [rough.request(0, prompt, max_new_tokens), rough.request(0)]
    with Engine(rough.kosmos, 4) as engine:
        check_all_but(rough, requests, [engine.submit(request) for request in requests], {0}, words)


@pytest.mark.parametrize(("act", "words"), [(fail_on_black, "a black image$"), (nan_for_black, "NaN")])
@pytest.mark.parametrize("slots", [1, 3, 8])
def test_image_that_the_model_fails_on_fails_alone(rough: Any, act: Any, words: str, slots: int) -> None:
    """The first, two in a row, and the last."""
    requests = with_black(rough, 12, failing := {0, 4, 5, 11})
    with rough.at_entrance(act), Engine(rough.kosmos, slots, sync_every=2) as engine:
        check_all_but(rough, requests, [engine.submit(request) for request in requests], failing, words)
        assert engine.figures.slots == slots
        assert engine.figures.generations == 8


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_row_that_makes_every_decode_fail_fails_alone(rough: Any, while_running: Any, slots: int) -> None:
    """Those who ran beside it begin anew, and say what they would have said."""
    requests = [rough.request(seed, min_new_tokens=4) for seed in range(9)]
    while_running(requests[3], fails(RuntimeError("no decoding with this one")))
    with Engine(rough.kosmos, slots, sync_every=2) as engine:
        check_all_but(rough, requests, [engine.submit(one) for one in requests], {3}, "no decoding with this one")


def test_decode_that_fails_with_every_row_is_no_rows_fault(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not compile, for one: prefill goes well, and no step ever does."""
    monkeypatch.setattr(Runner, "decode", fails_always)
    with Engine(rough.kosmos, 3) as engine:
        futures = [engine.submit(rough.request(seed, min_new_tokens=4)) for seed in range(6)]
        for future in futures:
            with pytest.raises(EngineBroken, match="fails on every image on cpu: RuntimeError: no C compiler"):
                future.result(TIMEOUT_S)


def fails_always(runner: Runner, rules: Any) -> None:
    raise RuntimeError("no C compiler")


def test_decode_that_fails_once_costs_nobody_anything(rough: Any, while_running: Any) -> None:
    requests = [rough.request(seed, min_new_tokens=4) for seed in range(6)]
    errors = [RuntimeError("once")]

    def fail_once() -> None:
        if errors:
            raise errors.pop()

    while_running(requests[1], fail_once)
    rough.check(requests, rough.run(requests, slots=3))
    assert not errors


def test_row_that_has_ended_is_answered_though_its_last_neighbour_fails(rough: Any, while_running: Any) -> None:
    short, long = rough.request(0, max_new_tokens=1), rough.request(1, max_new_tokens=24, min_new_tokens=24)
    entered = threading.Event()

    def fail_later() -> None:
        """Not in the turn that both begin in, but in the next."""
        if entered.is_set():
            raise RuntimeError("no decoding with this one")
        entered.set()

    while_running(long, fail_later)
    with Engine(rough.kosmos, 2, sync_every=1) as engine:
        futures = [engine.submit(request) for request in (short, long)]
        assert isinstance(futures[1].exception(TIMEOUT_S), PermanentFailure)
        assert futures[0].result(3).token_ids == rough.expected(short).token_ids


# ---- all of them


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            fails(RuntimeError("an error of the model")),
            "fails on every image on cpu: RuntimeError: an error of the model",
        ),
        (lambda images: images * torch.nan, "NaN for every image"),
        (fails(torch.OutOfMemoryError("CUDA out of memory")), "no memory for a single image"),
        (fails(torch.AcceleratorError("CUDA error: an illegal address")), "cpu is lost to this process.*illegal"),
        (fails(SystemExit()), "thread died: SystemExit"),
    ],
    ids=["error", "nan", "memory", "device", "exit"],
)
def test_broken_model_is_the_workers_fault_and_everyone_is_told(rough: Any, act: Any, words: str) -> None:
    requests = rough.pool(count=12, images=12)
    with rough.at_entrance(act), Engine(rough.kosmos, 4) as engine:
        for future in [engine.submit(request) for request in requests]:
            with pytest.raises(EngineBroken, match=words):
                future.result(TIMEOUT_S)
        with pytest.raises(EngineBroken, match=words):
            engine.submit(requests[0]).result(TIMEOUT_S)


@pytest.mark.parametrize(
    "error", [torch.AcceleratorError("CUDA error: an illegal address"), SystemExit()], ids=["device", "exit"]
)
def test_device_that_is_lost_while_rows_run_is_given_up_at_once(rough: Any, while_running: Any, error: Any) -> None:
    """Nothing is tried again on it, and what ended before is still handed out."""
    short = rough.request(0, max_new_tokens=1)
    others = [rough.request(seed, min_new_tokens=20) for seed in range(1, 8)]
    calls = []

    def fail_later() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise error

    while_running(others[0], fail_later)
    with Engine(rough.kosmos, 3, sync_every=1, refill=1) as engine:
        futures = [engine.submit(request) for request in (short, *others)]
        assert all(isinstance(future.exception(TIMEOUT_S), EngineBroken) for future in futures[1:])
        rough.check([short], [futures[0].result(TIMEOUT_S)])
    assert len(calls) == 3


def test_nobody_waits_in_vain_where_even_the_blaming_fails(
    rough: Any, monkeypatch: pytest.MonkeyPatch, gate: Any
) -> None:
    """A CUDA error may come with any call on the device, such as the one that cleans a slot."""
    [request] = with_black(rough, 1, {0})
    with rough.at_entrance(gate), rough.at_entrance(nan_for_black), Engine(rough.kosmos, 1) as engine:
        future = engine.submit(request)
        assert gate.entered.wait(TIMEOUT_S)
        monkeypatch.setattr(Runner, "forget", fails(torch.AcceleratorError("CUDA error: an illegal address")))
        gate.opened.set()
        assert isinstance(future.exception(3), EngineBroken)


def test_text_that_cannot_be_read_leaves_nobody_waiting(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [rough.request(seed) for seed in range(4)]
    monkeypatch.setattr(rough.kosmos, "raw_text", fails(ValueError("no such token")))
    engine = Engine(rough.kosmos, 2)
    futures = [engine.submit(request) for request in requests]
    assert all(future.exception(3) for future in futures)
    engine.close()
