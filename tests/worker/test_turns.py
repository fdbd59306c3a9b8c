"""Who may work beside whom."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from worker.turns import Turns


def never() -> bool:
    return False


class Worker:
    """A thread that has a turn, and keeps it until it is let go."""

    def __init__(self, turns: Turns, pool: ThreadPoolExecutor, alone: bool = False) -> None:
        self.has_turn, self.let_go = Event(), Event()
        self.done = pool.submit(self._work, turns, alone)

    def _work(self, turns: Turns, alone: bool) -> None:
        with turns.turn(alone, never) as got_it:
            assert got_it
            self.has_turn.set()
            assert self.let_go.wait(20)


def test_chunks_run_side_by_side() -> None:
    turns = Turns()
    with turns.turn(False, never) as one, turns.turn(False, never) as two:
        assert one
        assert two


def test_a_suspect_waits_for_all_others_and_they_for_it(wait_for: Callable[..., Any]) -> None:
    turns = Turns()
    with ThreadPoolExecutor(4) as pool:
        first = Worker(turns, pool)
        assert first.has_turn.wait(20)
        suspect = Worker(turns, pool, alone=True)
        wait_for(lambda: turns._alone_waiting)
        later = Worker(turns, pool)
        assert not suspect.has_turn.wait(0.1)
        assert not later.has_turn.is_set()  # else a suspect would wait for ever while others come
        first.let_go.set()
        assert suspect.has_turn.wait(20)
        assert not later.has_turn.wait(0.1)
        suspect.let_go.set()
        assert later.has_turn.wait(20)
        later.let_go.set()
    with turns.turn(True, never) as got_it:
        assert got_it


def test_two_suspects_run_one_after_the_other() -> None:
    turns = Turns()
    with ThreadPoolExecutor(2) as pool:
        one = Worker(turns, pool, alone=True)
        assert one.has_turn.wait(20)
        two = Worker(turns, pool, alone=True)
        assert not two.has_turn.wait(0.1)
        one.let_go.set()
        assert two.has_turn.wait(20)
        two.let_go.set()


def test_a_stop_ends_the_wait_and_leaves_the_others_be() -> None:
    turns = Turns()
    with turns.turn(False, never):
        with turns.turn(True, lambda: True) as got_it:
            assert not got_it
        with turns.turn(False, never) as beside:
            assert beside


def test_a_turn_ends_with_an_error_too() -> None:
    turns = Turns()
    try:
        with turns.turn(True, never):
            raise RuntimeError
    except RuntimeError:
        pass
    with turns.turn(True, never) as got_it:
        assert got_it
