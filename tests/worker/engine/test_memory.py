"""Out of memory: fewer slots, and on. As many slots as there is memory for."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from schemas.errors import Code, EngineBroken, PermanentFailure
from worker.decoder import Decoder
from worker.engine import SLOT_TOKENS, Engine
from worker.faults import Fault
from worker.memory import CPU_SHARE, MOST_ON_CPU, MOST_ON_GPU, RESERVE_BYTES, memory_bytes, slots_that_fit
from worker.runner import Runner, images_at_once
from worker.scheduler import Plan

TIMEOUT_S = 60
LONG = "a red circle and a blue ring " * 25
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "cpu"])
def test_slots_are_halved_until_a_prefill_fits(
    rough: Any, monkeypatch: pytest.MonkeyPatch, gate: Any, error: Exception
) -> None:
    prefill, sizes = Runner.prefill, []

    def little_memory(runner: Runner, plan: Plan) -> None:
        sizes.append(len(plan.rows))
        if len(plan.rows) > 3:
            raise error
        prefill(runner, plan)

    monkeypatch.setattr(Runner, "prefill", little_memory)
    requests = [rough.request(seed % 14) for seed in range(20)]
    with rough.at_entrance(gate), Engine(rough.kosmos, 16) as engine:
        futures = [engine.submit(request) for request in requests]
        gate.opened.set()
        generations = [future.result(TIMEOUT_S) for future in futures]
        assert engine.figures.slots == 2
    rough.check(requests, generations)
    assert sizes[-1] <= 2


def test_rows_that_run_when_memory_runs_out_begin_anew(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, calls = Runner.decode, []

    def little_memory(runner: Runner, rules: Any) -> None:
        decode(runner, rules)
        calls.append(runner.slots)
        if len(calls) in (2, 5):
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Runner, "decode", little_memory)
    requests = [rough.request(seed) for seed in range(12)]
    with Engine(rough.kosmos, 8, sync_every=1) as engine:
        generations = [future.result(TIMEOUT_S) for future in [engine.submit(request) for request in requests]]
        assert engine.figures.slots == 2
        assert engine.figures.generations == 12
    rough.check(requests, generations)
    assert sorted(set(calls)) == [2, 4, 8]


def no_room_for(limit: int) -> Any:
    """`Decoder.allocate` that gives no cache of more than `limit` tokens in all slots together."""
    allocate = Decoder.allocate

    def little_memory(decoder: Decoder, slots: int, length: int) -> None:
        if slots * length > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        allocate(decoder, slots, length)

    return little_memory


def test_slots_at_the_start_are_those_that_there_is_room_for(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "allocate", no_room_for(5 * SLOT_TOKENS))
    requests = [rough.request(seed) for seed in range(6)]
    with Engine(rough.kosmos, 16) as engine:
        assert engine.figures.slots == 4
        rough.check(requests, [future.result(TIMEOUT_S) for future in [engine.submit(one) for one in requests]])


def test_row_that_is_too_long_for_so_many_slots_has_fewer(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "allocate", no_room_for(5 * SLOT_TOKENS))
    requests = [rough.request(0), rough.request(1, LONG), rough.request(2)]
    with Engine(rough.kosmos, 4) as engine:
        assert engine.figures.slots == 4
        rough.check(requests, [future.result(TIMEOUT_S) for future in [engine.submit(one) for one in requests]])
        assert engine.figures.slots == 2


def test_without_memory_for_one_slot_there_is_no_engine(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "allocate", no_room_for(SLOT_TOKENS - 1))
    with pytest.raises(EngineBroken, match="no memory for a single image on cpu"):
        Engine(rough.kosmos, 4)


def test_row_that_no_single_slot_has_memory_for_fails_alone(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "allocate", no_room_for(4 * SLOT_TOKENS // 3))
    requests = [rough.request(0), rough.request(1, LONG), rough.request(2)]
    with Engine(rough.kosmos, 1) as engine:
        first, long, last = [engine.submit(request) for request in requests]
        with pytest.raises(PermanentFailure, match="no memory for a row of") as failure:
            long.result(TIMEOUT_S)
        assert failure.value.code is Code.MODEL_ERROR
        rough.check([requests[0], requests[2]], [first.result(TIMEOUT_S), last.result(TIMEOUT_S)])


def test_error_that_is_not_of_memory_is_no_reason_for_fewer_slots(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(decoder: Decoder, slots: int, length: int) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(Decoder, "allocate", broken)
    with pytest.raises(RuntimeError, match="something else"):
        Engine(rough.kosmos, 4)


def test_memory_is_measured_when_the_old_slots_are_gone(rough: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held, allocate = [0], Decoder.allocate

    def spy(decoder: Decoder, slots: int, length: int) -> None:
        allocate(decoder, slots, length)
        held[0] = slots * decoder.slot_bytes(length)

    monkeypatch.setattr(Decoder, "allocate", spy)
    total = 8 * 2 * 2 * 128 * 4 * SLOT_TOKENS  # room for 8 slots, until rows are longer
    engines: list[Engine] = []

    def fit(slot_bytes: int, device: torch.device) -> int:
        cache = engines[0]._runner.decoder.cache if engines else torch.empty(0)
        return max(1, (total - cache.nbytes) // slot_bytes)

    monkeypatch.setattr("worker.engine.slots_that_fit", fit)
    with Engine(rough.kosmos) as engine:
        engines.append(engine)
        assert engine.figures.slots == 8
        assert engine.submit(rough.request(1, LONG)).result(TIMEOUT_S)
        assert engine.figures.slots == total // engine._runner.decoder.slot_bytes(engine._scheduler.length) > 1


def test_slots_on_a_cpu_take_their_share_of_its_memory() -> None:
    room = int(memory_bytes() * CPU_SHARE)
    device = torch.device("cpu")
    assert slots_that_fit(1, device) == MOST_ON_CPU
    assert slots_that_fit(room // 5, device) == 5
    assert slots_that_fit(room * 2, device) == 1


def test_slots_on_a_gpu_leave_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    device, slot = torch.device("cuda"), 37_748_736
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    for free, expected in ((140 * 2**30, MOST_ON_GPU), (RESERVE_BYTES + 100 * slot, 100), (RESERVE_BYTES, 1), (0, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2 * free))
        assert slots_that_fit(slot, device) == expected


def test_memory_is_that_of_the_container(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    physical = memory_bytes(limit)
    assert physical == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit.write_text("max\n")
    assert memory_bytes(limit) == physical
    limit.write_text("1048576\n")
    assert memory_bytes(limit) == 1048576


def test_larger_models_encode_fewer_images_at_once(rough: Any) -> None:
    vision = SimpleNamespace(image_size=224, patch_size=14, intermediate_size=512)
    kosmos = SimpleNamespace(
        device=torch.device("cpu"), dtype=torch.float32, model=SimpleNamespace(config=SimpleNamespace())
    )
    kosmos.model.config.vision_config = vision
    found = []
    for width in (512, 2048, 4096, 1 << 20):
        vision.intermediate_size = width
        found.append(images_at_once(kosmos))
    assert found == [16, 4, 2, 1]


@pytest.mark.parametrize(
    ("error", "memory", "device"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, False),
        (MemoryError(), True, False),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True, False),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), True, False),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("shapes cannot be multiplied"), False, False),
    ],
)
def test_error_is_told_by_its_kind_and_by_its_words(error: Exception, memory: bool, device: bool) -> None:
    fault = Fault.of(error)
    assert (fault.is_out_of_memory, fault.is_of_the_device) == (memory, device)
    assert fault.words.startswith(type(error).__name__)
