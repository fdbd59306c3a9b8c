"""Worker processes that are watched."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from sqlalchemy import text

from kosmograph.workers import MOST_EMPTY_DEATHS, WorkerPool, devices_for
from schemas.database import Database
from schemas.errors import SetupError, UsageError
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, work
from schemas.recipes import Recipe
from schemas.settings import Settings, load_settings

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")


@pytest.fixture
def pool(database_url: str, broker: Any, tmp_path: Path) -> Iterator[Callable[..., WorkerPool]]:
    made: list[WorkerPool] = []

    def make(model: str = "null", revision: str | None = None, count: int = 1, metrics_port: int = 0) -> WorkerPool:
        place = {"db": database_url, "broker": broker.url, "device": "cpu", "metrics_port": metrics_port}
        settings = Settings(**place, model=model, loader_processes=1)
        made.append(WorkerPool(settings, ["cpu"] * count, tmp_path, revision=revision, dtype=None))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_killed_worker_is_replaced_and_its_chunk_comes_back_at_once(
    database: Database, pool: Callable[..., WorkerPool], wait_for: Callable[..., Any]
) -> None:
    workers = pool()
    name = workers._places[0].name
    job = jobs.open_job(database, "job", [RECIPE], listing="{}")
    listing.register(database, job, [Item("s3://b/1")], cursor=None, chunk_size=1)
    (departure,) = dispatch.take_pending(database, job.queue, "here", 1)
    assert work.claim_chunk(database, departure.chunk_id, departure.fence, worker=name, lease_s=1000)
    assert workers.check() == 0
    (process,) = wait_for(lambda: psutil.Process(workers._places[0].child._keeper.pid).children())
    os.kill(process.pid, signal.SIGKILL)
    wait_for(workers.check)
    assert workers._places[0].name != name
    assert workers._places[0].child.code is None
    assert dispatch.reclaim_expired(database) == 1
    with database.read() as connection:
        assert connection.execute(text("SELECT state, crashes FROM chunks")).one() == ("pending", 1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_worker_that_says_it_cannot_work_ends_the_run_in_one_line(
    pool: Callable[..., WorkerPool], wait_for: Callable[..., Any], tmp_path: Path
) -> None:
    workers = pool(model=str(tmp_path / "no model"))
    with pytest.raises(SetupError, match=r"^the worker on cpu gave up: [^\n]*no model[^\n]*$"):
        wait_for(workers.check)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_worker_that_dies_again_and_again_ends_the_run(
    pool: Callable[..., WorkerPool], wait_for: Callable[..., Any]
) -> None:
    workers = pool()

    def killed() -> bool:
        if (place := workers._places[0]).child.code is None:
            for one in psutil.Process(place.child._keeper.pid).children():
                one.kill()
        workers.check()
        return False

    with pytest.raises(SetupError, match="the worker on cpu gave up"):
        wait_for(killed)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_each_worker_has_a_port_for_its_metrics_and_keeps_it_when_it_is_replaced(
    pool: Callable[..., WorkerPool], wait_for: Callable[..., Any]
) -> None:
    first = two_free_ports()
    workers = pool(count=2, metrics_port=first)

    def names() -> list[str]:
        """Of the workers that answer, by port."""
        found = []
        for port in (first, first + 1):
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                found += re.findall(r'kosmograph_worker_info{.*worker="([^"]+)"', answer.read().decode())
        return found

    before = [place.name for place in workers._places]
    wait_for(lambda: names() == before)
    for one in psutil.Process(workers._places[1].child._keeper.pid).children():
        one.kill()
    wait_for(workers.check)
    after = [place.name for place in workers._places]
    assert before[0] == after[0]
    assert before[1] != after[1]
    wait_for(lambda: names() == after)


def two_free_ports() -> int:
    """The first of them."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", 0)) as one:
            port = int(one.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_worker_that_had_lived_for_long_is_replaced_as_often_as_it_dies(
    pool: Callable[..., WorkerPool], wait_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kosmograph.workers.LONG_S", 0.0)
    workers = pool()
    for _ in range(MOST_EMPTY_DEATHS + 1):
        (place,) = workers._places
        keeper = psutil.Process(place.child._keeper.pid)
        wait_for(keeper.children)
        for one in keeper.children():
            one.kill()
        wait_for(workers.check)
    assert workers._places[0].empty_deaths == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_device_that_fails_again_and_again_is_given_up_and_the_others_go_on(
    pool: Callable[..., WorkerPool], wait_for: Callable[..., Any]
) -> None:
    workers = pool(count=2)
    broken, sound = workers._places

    def killed() -> bool:
        if broken.child.code is None:
            for one in psutil.Process(broken.child._keeper.pid).children():
                one.kill()
        workers.check()
        return workers._places == [sound]

    wait_for(killed)
    assert sound.child.code is None


def settings(**flags: Any) -> Settings:
    return load_settings(**flags)


def test_devices_are_the_gpus_that_are_here_or_cpus() -> None:
    here = lambda: ["cuda:0", "cuda:1", "cuda:2"]  # noqa: E731
    assert devices_for(settings(), found=here) == here()
    assert devices_for(settings(workers=2), found=here) == ["cuda:0", "cuda:1"]
    assert devices_for(settings(workers=0), found=here) == []
    assert devices_for(settings(), found=list) == ["auto"]
    assert devices_for(settings(workers=3), found=list) == ["cpu"] * 3
    assert devices_for(settings(device="cpu", workers=2), found=here) == ["cpu"] * 2
    assert devices_for(settings(device="cuda:1"), found=here) == ["cuda:1"]
    assert devices_for(settings(), "all", here) == here()
    assert devices_for(settings(), "0,2", here) == ["cuda:0", "cuda:2"]
    assert devices_for(settings(), "1,1", here) == ["cuda:1"]


@pytest.mark.parametrize("gpus", ["", "x", "0,", "-1", "0 1", "all,0"])
def test_gpus_that_are_no_numbers_are_refused(gpus: str) -> None:
    with pytest.raises(UsageError, match="--gpus takes all, or numbers"):
        devices_for(settings(), gpus, list)


def test_gpus_that_are_not_here_are_told() -> None:
    for flags, gpus in (({"device": "cuda"}, None), ({}, "all")):
        with pytest.raises(SetupError, match="no NVIDIA GPU is visible"):
            devices_for(settings(**flags), gpus, list)


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("2,3", 2), ("GPU-abc,GPU-def", 2)])
def test_cuda_visible_devices_is_heeded(monkeypatch: pytest.MonkeyPatch, visible: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(devices_for(settings())) == max(count, 1)
