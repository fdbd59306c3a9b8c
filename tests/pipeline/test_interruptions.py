"""Runs that end before they are done, and the same command again."""

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.pipeline.conftest import jpeg

IMAGES = 1500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough small pictures that no run is through with them before it is interrupted."""
    place = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        (place / f"{number:05}.jpg").write_bytes(jpeg(number))
    return place


@pytest.fixture
def half_way(kosmograph, wait_for):
    """Start a run, and come back when a part of it is committed."""

    def start(folder: Path) -> "subprocess.Popen[str]":
        run = kosmograph.start("annotate", str(folder), "--model", "null", KOSMOGRAPH_CHUNK_SIZE="16")
        wait_for(lambda: count(kosmograph, "SELECT COUNT(*) FROM outcomes") >= 32 or run.poll() is not None, 60.0)
        assert run.poll() is None, run.communicate()
        return run

    return start


def count(kosmograph, query: str) -> int:
    """A number from the database, 0 while there are no tables."""
    path = kosmograph.folder / "kosmograph.db"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def children_of(pid: int) -> list[psutil.Process]:
    """All descendants that run."""
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def assert_every_image_has_one_outcome(kosmograph) -> None:
    assert kosmograph.value("SELECT COUNT(*) FROM outcomes") == IMAGES
    assert kosmograph.value("SELECT COUNT(DISTINCT image_id) FROM outcomes") == IMAGES
    assert kosmograph.value("SELECT COUNT(*) FROM annotations") == IMAGES
    assert kosmograph.value("SELECT COUNT(*) FROM chunks WHERE state <> 'done'") == 0
    progress = kosmograph.sql("SELECT * FROM progress")[0]
    assert (progress["state"], progress["annotated"], progress["reused"], progress["failed"], progress["pending"]) == (
        "finished", IMAGES, 0, 0, 0,
    )  # fmt: skip


def assert_the_same_command_goes_on(kosmograph, folder: Path) -> None:
    """What is committed of a run that was cut off stays as it is, and the rest is done."""
    committed = kosmograph.sql("SELECT * FROM annotations ORDER BY id")
    assert 0 < len(committed) < IMAGES
    again = kosmograph.annotate(str(folder), KOSMOGRAPH_CHUNK_SIZE="16")
    assert again.code == 0, again.err
    assert kosmograph.sql("SELECT * FROM annotations ORDER BY id")[: len(committed)] == committed
    assert_every_image_has_one_outcome(kosmograph)


def test_ctrl_c_commits_what_is_finished_and_the_same_command_goes_on(
    kosmograph, folder: Path, half_way, wait_for
) -> None:
    run = half_way(folder)
    children = children_of(run.pid)
    assert children
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "the same command continues" in out
    wait_for(lambda: gone(children), 60.0)
    assert kosmograph.value("SELECT COUNT(*) FROM chunks WHERE state IN ('queued', 'running')") == 0
    assert kosmograph.value("SELECT COALESCE(MAX(crashes), 0) FROM chunks") == 0
    assert_the_same_command_goes_on(kosmograph, folder)


def test_kill_9_leaves_nothing_running_and_the_same_command_goes_on(
    kosmograph, folder: Path, half_way, wait_for
) -> None:
    run = half_way(folder)
    children = children_of(run.pid)
    run.kill()
    run.communicate(timeout=60)
    wait_for(lambda: gone(children), 60.0)
    assert_the_same_command_goes_on(kosmograph, folder)


@contextmanager
def standing_still(run: "subprocess.Popen[str]") -> Iterator[None]:
    """Its loaders are stopped while the block runs, so that the job cannot end meanwhile."""
    loaders = [child for worker in workers_of(run) for child in worker.children()]
    assert loaders
    for loader in loaders:
        loader.suspend()
    yield
    for loader in loaders:
        with suppress(psutil.NoSuchProcess):  # its worker has ended it
            loader.resume()


def workers_of(run: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The worker processes of a run, without their keepers."""
    commands = {child: child.cmdline() for child in children_of(run.pid)}
    return [child for child, words in commands.items() if "worker" in words and "kosmograph.keeper" not in words]


def test_two_runs_of_one_job_at_once_are_refused(kosmograph, folder: Path, half_way) -> None:
    """The second says so in one line; the first goes on as if nothing had happened."""
    first = half_way(folder)
    with standing_still(first):
        second = kosmograph.annotate(str(folder))
    assert second.code == 1
    assert "at work in another process" in second.err
    assert len(second.err.strip().splitlines()) == 1
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert_every_image_has_one_outcome(kosmograph)


def test_pause_ends_the_run_and_the_same_command_resumes(kosmograph, folder: Path, half_way) -> None:
    run = half_way(folder)
    with standing_still(run):
        job = kosmograph.value("SELECT job FROM progress")
        assert kosmograph("pause", job).code == 0
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "paused: by hand" in err
    assert "kosmograph resume" in err
    again = kosmograph.annotate(str(folder))
    assert again.code == 0, again.err
    assert_every_image_has_one_outcome(kosmograph)


def test_cancelled_job_keeps_what_is_annotated(kosmograph, folder: Path, half_way) -> None:
    run = half_way(folder)
    with standing_still(run):
        assert kosmograph("cancel", kosmograph.value("SELECT job FROM progress")).code == 0
    run.communicate(timeout=60)
    assert run.returncode == 1
    progress = kosmograph.sql("SELECT * FROM progress")[0]
    assert progress["state"] == "cancelled"
    assert progress["annotated"] == kosmograph.value("SELECT COUNT(*) FROM outcomes") > 0
    assert progress["pending"] > 0


def test_killed_worker_is_replaced_and_its_chunks_are_done(kosmograph, folder: Path, half_way) -> None:
    run = half_way(folder)
    for worker in workers_of(run):
        worker.kill()
    run.communicate(timeout=120)
    assert run.returncode == 0
    assert_every_image_has_one_outcome(kosmograph)
