"""An engine that is closed answers everyone, now or within its grace."""

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest

from schemas.errors import EngineClosed
from worker.engine import Engine
from worker.generation import Generation

TIMEOUT_S = 60


def close_while_one_runs(
    subject: Any, gate: Any, grace_s: float
) -> tuple[Future[Generation], list[Future[Generation]]]:
    """One request that was running when the engine was closed, and three that were not."""
    with subject.at_entrance(gate):
        engine = Engine(subject.kosmos, 1)
        running = engine.submit(subject.request(0, min_new_tokens=9))
        assert gate.entered.wait(TIMEOUT_S)
        others = [engine.submit(subject.request(1)) for _ in range(2)]
        closing = threading.Thread(target=engine.close, args=(grace_s,))
        closing.start()
        assert isinstance(others[0].exception(TIMEOUT_S), EngineClosed)
        others.append(engine.submit(subject.request(2)))
        gate.opened.set()
        closing.join(TIMEOUT_S)
        assert not closing.is_alive()
    return running, others


def test_close_finishes_what_runs_and_hands_back_what_waits(rough: Any, gate: Any) -> None:
    running, others = close_while_one_runs(rough, gate, grace_s=TIMEOUT_S)
    rough.check([rough.request(0, min_new_tokens=9)], [running.result(0)])
    assert all(isinstance(future.exception(0), EngineClosed) for future in others)


def test_close_without_grace_hands_back_what_runs(rough: Any, gate: Any) -> None:
    running, others = close_while_one_runs(rough, gate, grace_s=0)
    assert all(isinstance(future.exception(0), EngineClosed) for future in (running, *others))


def test_close_hands_out_what_has_ended(rough: Any, gate: Any) -> None:
    """Though its neighbour still runs, and gets no more time."""
    short, long = rough.request(0, max_new_tokens=1), rough.request(1, max_new_tokens=400, min_new_tokens=400)
    with rough.at_entrance(gate):
        engine = Engine(rough.kosmos, 2, sync_every=1)
        first = engine.submit(short)
        second = engine.submit(long)
        gate.opened.set()
        rough.check([short], [first.result(TIMEOUT_S)])
        engine.close(grace_s=0)
    assert isinstance(second.exception(0), EngineClosed)


def test_row_that_fails_after_the_close_is_answered_too(rough: Any, gate: Any) -> None:
    """What would be tried again, alone, is handed back: there is no time for it."""

    def fail(images: Any) -> None:
        gate(images)
        raise RuntimeError("after the close")

    with rough.at_entrance(gate), rough.at_entrance(fail):
        engine = Engine(rough.kosmos, 4)
        futures = [engine.submit(rough.request(seed)) for seed in range(4)]
        assert gate.entered.wait(TIMEOUT_S)
        closing = threading.Thread(target=engine.close)
        closing.start()
        while not isinstance(engine.submit(rough.request(0)).exception(TIMEOUT_S), EngineClosed):
            pass
        gate.opened.set()
        closing.join(TIMEOUT_S)
    assert all(future.exception(0) for future in futures)


def test_closing_twice_and_from_several_threads_is_closing(rough: Any) -> None:
    engine = Engine(rough.kosmos, 2)
    threads = [threading.Thread(target=engine.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    engine.close()
    assert isinstance(engine.submit(rough.request(0)).exception(0), EngineClosed)
    assert not any(thread.name == "engine" and thread is engine._thread for thread in threading.enumerate())


def test_closing_while_many_threads_submit_leaves_nobody_waiting(rough: Any) -> None:
    """Each of them goes on until it is told that the engine is closed."""
    answers: list[tuple[Any, Future[Generation]]] = []
    some_done = threading.Event()

    def submit(thread: int) -> None:
        for turn in range(10**6):
            request = rough.request((thread + turn) % 6)
            future = engine.submit(request)
            answers.append((request, future))
            if turn % 4 == 3 and isinstance(future.exception(TIMEOUT_S), EngineClosed):
                return
            if turn == 3:
                some_done.set()

    with ThreadPoolExecutor(8) as threads:
        engine = Engine(rough.kosmos, 3)
        submitted = [threads.submit(submit, thread) for thread in range(8)]
        assert some_done.wait(TIMEOUT_S)
        engine.close()
        for one in submitted:
            one.result(TIMEOUT_S)
    done = [(request, future.result(0)) for request, future in answers if not future.exception(0)]
    assert all(isinstance(future.exception(0), EngineClosed | None) for _, future in answers)
    assert 4 <= len(done) < len(answers)
    rough.check(*map(list, zip(*done, strict=True)))


def test_cancelled_request_is_not_computed(rough: Any, gate: Any) -> None:
    requests = [rough.request(seed) for seed in range(3)]
    with rough.at_entrance(gate), Engine(rough.kosmos, 4) as engine:
        first = engine.submit(requests[0])
        assert gate.entered.wait(TIMEOUT_S)
        second, third = (engine.submit(request) for request in requests[1:])
        assert engine.figures.waiting == 2
        assert second.cancel()
        assert not first.cancel()
        gate.opened.set()
        rough.check([requests[0], requests[2]], [first.result(TIMEOUT_S), third.result(TIMEOUT_S)])
        assert engine.figures.images == 2
        assert engine.figures.waiting == 0
    with pytest.raises(CancelledError):
        second.result()


def test_engine_sleeps_and_wakes(rough: Any) -> None:
    """A request that comes when all is done is answered, and one that was cancelled before its turn wakes nobody."""
    with Engine(rough.kosmos, 2) as engine:
        for seed in range(3):
            request = rough.request(seed)
            rough.check([request], [engine.submit(request).result(TIMEOUT_S)])
            engine.submit(request).cancel()
    assert engine.figures.waiting == engine.figures.running == 0
