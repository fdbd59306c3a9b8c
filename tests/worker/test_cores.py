"""Which cores go to the model and which to the loaders."""

import os

import pytest

from schemas.settings import Settings
from worker.cores import loader_processes, our_cores, torch_threads


@pytest.fixture(params=[1, 2, 16])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine of so many."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)), raising=False)
    return int(request.param)


def test_on_a_cpu_model_and_loaders_share_all_cores(cores: int) -> None:
    assert torch_threads(Settings(), gpu=False) == cores
    assert loader_processes(Settings(), gpu=False) == cores


def test_loaders_leave_the_engine_of_a_gpu_a_core(cores: int) -> None:
    assert loader_processes(Settings(), gpu=True) == max(1, cores - 1)
    assert 1 <= torch_threads(Settings(), gpu=True) <= cores


def test_workers_of_one_machine_share_its_cores(cores: int) -> None:
    assert our_cores(Settings(workers=4)) == max(1, cores // 4)


@pytest.mark.parametrize("gpu", [False, True])
def test_what_is_set_is_taken(gpu: bool) -> None:
    settings = Settings(torch_threads=3, loader_processes=5)
    assert (torch_threads(settings, gpu=gpu), loader_processes(settings, gpu=gpu)) == (3, 5)
