"""What a row leaves in its slot is nobody's business: not the next row's, and not its neighbours'."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from schemas.errors import Code, PermanentFailure
from worker.decoder import PREFIX
from worker.decoding import Rules
from worker.engine import Engine
from worker.runner import Runner
from worker.scheduler import Plan, Row, Scheduler

TIMEOUT_S = 60
POISON = 3e4


def row(subject: Any, *arguments: Any, **options: Any) -> Row:
    request = subject.request(*arguments, **options)
    return Row(request, subject.kosmos.prompt_ids(request.prompt))


def replace_pixels(one: Row, level: int) -> Row:
    return Row(replace(one.request, pixels=one.request.pixels * 0 + level), one.prompt_ids)


def runner_with(subject: Any, *rows: Row, slots: int, sync_every: int = 1) -> Runner:
    """A runner with these rows in its first slots, prefilled."""
    runner = Runner(subject.kosmos, sync_every=sync_every)
    runner.allocate(slots, 192)
    placed = list(zip(rows, range(slots), strict=False))
    runner.prefill(Plan(images=[(one.request.pixels, slot) for one, slot in placed], rows=placed))
    return runner


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Before each prefill all that its slots hold becomes poison, but the image of a row that takes it as it is."""
    done, prefill = [], Runner.prefill

    @torch.inference_mode()
    def poison(runner: Runner, plan: Plan) -> None:
        filled = {slot for _, slot in [*plan.images, *plan.copies]}
        for _, slot in plan.rows:
            start = 0 if slot in filled else PREFIX
            runner.decoder.cache[:, :, slot, :, start:] = POISON
            runner.ids[slot] = runner.kosmos.vocabulary.first_patch
            runner.logprobs[slot] = POISON
            runner.limits[slot] = 1
            runner.next[slot] = 1
        done.extend("image" for _ in plan.images)
        done.extend("copy" for _ in plan.copies)
        done.extend("in place" for _, slot in plan.rows if slot not in filled)
        prefill(runner, plan)

    monkeypatch.setattr(Runner, "prefill", poison)
    return done


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_poison_in_a_freed_slot_reaches_nobody(rough: Any, poisoned: list[str], slots: int) -> None:
    requests = random.Random(slots).sample(rough.pool(count=48, images=32), 48)
    requests += [rough.request(seed % 4, "a" * (1 + seed // 4)) for seed in range(16)]
    rough.check(requests, rough.run(requests, slots=slots, sync_every=3))
    assert {"image", "in place"} <= set(poisoned)
    assert slots == 1 or "copy" in poisoned


def nan_for_white(images: torch.Tensor) -> torch.Tensor:
    return torch.where((images.amin((1, 2, 3)) > 1.5)[:, None, None, None], torch.nan, images)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_image_of_nan_fails_alone_and_the_next_in_its_slot_is_right(rough: Any, slots: int) -> None:
    """Twice it comes with two prompts, of which one would be a copy."""
    sound = [rough.request(seed) for seed in range(12)]
    white = replace(sound[0], pixels=rough.picture(0) * 0 + 255)
    requests = [*sound[:2], white, white, *sound[2:5], white, *sound[5:]]
    with rough.at_entrance(nan_for_white), Engine(rough.kosmos, slots, sync_every=2) as engine:
        futures = [engine.submit(request) for request in requests]
        for request, future in zip(requests, futures, strict=True):
            if request is white:
                with pytest.raises(PermanentFailure, match="NaN") as failure:
                    future.result(TIMEOUT_S)
                assert failure.value.code is Code.MODEL_ERROR
            else:
                rough.check([request], [future.result(TIMEOUT_S)])
        assert engine.figures.slots == slots


def test_row_of_nan_ends_at_once(rough: Any) -> None:
    """And does not compute nothing up to its limit."""
    rows = [row(rough, 0), replace_pixels(row(rough, 1), 255), row(rough, 2, min_new_tokens=2)]
    with rough.at_entrance(nan_for_white):
        runner = runner_with(rough, *rows, slots=3)
    assert len(runner.collect()[1].token_ids) == 1


def test_row_that_has_ended_stays_as_it_is_whatever_runs_on(rough: Any) -> None:
    """For as long as its slot is not refilled; and its neighbours do not see it either."""
    rows = [row(rough, seed, max_new_tokens=limit, min_new_tokens=limit) for seed, limit in enumerate((1, 4, 24))]
    runner = runner_with(rough, *rows, slots=3)
    expected = [rough.expected(one.request) for one in rows]
    found = dict(runner.collect())
    for _ in range(3):
        runner.decode(Rules())
        found |= runner.collect()
    assert sorted(found) == [0, 1]
    before = [state[:2].clone() for state in (runner.ids, runner.logprobs, runner.next, runner.done)]
    image = runner.decoder.cache[:, :, :2, :, :PREFIX].clone()
    for _ in range(20):
        runner.decode(Rules(min_new_tokens=True))
        found |= runner.collect()
    after = [state[:2] for state in (runner.ids, runner.logprobs, runner.next, runner.done)]
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))
    assert runner.decoder.cache[:, :, :2, :, :PREFIX].equal(image)
    assert [len(found[slot].token_ids) for slot in range(3)] == [1, 4, 24]
    assert found[0].token_ids == expected[0].token_ids


def test_rows_that_end_long_before_the_host_looks_are_what_they_are_alone(rough: Any) -> None:
    """Also one that fills its slot to the brim, behind which there is no place for another token."""
    full = 192 - len(rough.kosmos.prompt_ids(rough.request(0).prompt))
    rows = [row(rough, seed, max_new_tokens=limit) for seed, limit in enumerate((1, 2, 7, 24))]
    rows.append(row(rough, 4, max_new_tokens=full, min_new_tokens=full))
    runner = runner_with(rough, *rows, slots=6, sync_every=full + 40)
    runner.decode(Rules(min_new_tokens=True))
    found = runner.collect()
    for slot, one in enumerate(rows):
        assert found[slot].token_ids == rough.expected(one.request).token_ids
        assert found[slot].logprobs == pytest.approx(rough.expected(one.request).logprobs, abs=1e-4)
    assert runner.collect() == {}


def test_forgotten_row_is_never_collected_and_its_slot_is_clean(rough: Any) -> None:
    rows = [row(rough, seed, min_new_tokens=9, max_new_tokens=9) for seed in range(3)]
    runner = runner_with(rough, *rows, slots=3)
    runner.forget([1])
    assert not runner.decoder.cache[:, :, 1].any()
    assert runner.decoder.cache[:, :, [0, 2]].any()
    found: dict[int, Any] = {}
    for _ in range(8):
        runner.decode(Rules(min_new_tokens=True))
        found |= runner.collect()
    assert sorted(found) == [0, 2]
    assert found[2].token_ids == rough.expected(rows[2].request).token_ids


def test_copies_take_their_images_before_any_row_begins(rough: Any) -> None:
    """All copies of a plan at once, from slots that it has only just filled."""
    rows = [row(rough, 7, prompt) for prompt in ("", "a", "<grounding>", "<grounding>An image of")]
    runner = Runner(rough.kosmos, sync_every=24)
    runner.allocate(4, 192)
    scheduler = Scheduler(4, 192)
    for one in rows:
        scheduler.add(one)
    plan = scheduler.schedule()
    assert len(plan.copies) == 3
    runner.prefill(plan)
    runner.decode(Rules())
    found = runner.collect()
    assert [found[slot].token_ids for _, slot in plan.rows] == [rough.expected(one.request).token_ids for one in rows]
