"""`annotate`, with all that it starts, under signals; two of them on one database; a listing that is cut off."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from schemas.items import unpack_items
from schemas.uris import file_uri, path_of
from tests.faults.invariants import assert_sound
from tests.faults.night import EITHER_SIGNAL, ON_SQLITE, Night, Service, is_gone

OWN_REDIS = {"KOSMOGRAPH_BROKER": "", "KOSMOGRAPH_CHUNK_SIZE": "16"}


@pytest.fixture
def folder_of(tmp_path: Path, pictures: Sequence[str]) -> Callable[..., Path]:
    """A folder of that name with some of the pictures."""

    def make(name: str, first: int, end: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for uri in pictures[first:end]:
            os.link(path_of(uri), folder / path_of(uri).name)
        return folder

    return make


def uris_in(folder: Path) -> list[str]:
    return [file_uri(path) for path in folder.iterdir()]


def annotate(night: Night, folder: Path, name: str = "run") -> Service:
    return night.command(name, "annotate", str(folder), "--model", "null", "--job", folder.name, **OWN_REDIS)


def stand_still(run: Service) -> None:
    """Stop its loaders for good, so that the job cannot end before the fault."""
    commands = {process: process.cmdline() for process in run.family()[1:]}
    workers = [one for one, words in commands.items() if "worker" in words and "kosmograph.keeper" not in words]
    loaders = [loader for worker in workers for loader in worker.children()]
    assert loaders
    for loader in loaders:
        loader.suspend()


@ON_SQLITE
@EITHER_SIGNAL
def test_signal_to_every_process_of_a_run_blames_no_image(
    night: Night, folder_of: Callable[..., Path], number: int
) -> None:
    """Keepers, Redis, workers and loaders get it too, as systemd and Slurm do it; the same command goes on."""
    folder = folder_of("job", 0, 400)
    run = annotate(night, folder)
    night.until(lambda: night.count("outcomes") >= 32)
    stand_still(run)
    family = run.family()
    for process in family:
        process.send_signal(number)
    assert run.ends(40) == 130, run.log.read_text()
    night.until(lambda: is_gone(family))
    assert 0 < night.count("outcomes") < 400
    assert night.count("chunks WHERE state IN ('queued', 'running') OR lease_until IS NOT NULL") == 0
    assert not night.blamed()
    again = annotate(night, folder)
    assert again.ends(60) == 0, again.log.read_text()
    assert_sound(night.database, uris_in(folder))
    assert not night.blamed()


def test_run_is_killed_and_started_again_beside_another_on_one_database(
    night: Night, folder_of: Callable[..., Path]
) -> None:
    """Two jobs that share some of their bytes: the one that lives is not disturbed, the other one goes on."""
    left, right = folder_of("left", 0, 250), folder_of("right", 150, 400)
    first, second = annotate(night, left, "left"), annotate(night, right, "right")
    night.until(lambda: night.count("outcomes WHERE job_id = (SELECT id FROM jobs WHERE name = 'left')"))
    stand_still(first)
    family = first.family()
    first.kill()
    night.until(lambda: is_gone(family))
    again = annotate(night, left, "again")
    assert again.ends(60) == 0, again.log.read_text()
    assert second.ends(60) == 0, second.log.read_text()
    assert_sound(night.database, uris_in(left), job="left")
    assert_sound(night.database, uris_in(right), job="right")


def test_listing_that_is_killed_goes_on_from_its_cursor(night: Night, tmp_path: Path) -> None:
    """Chunks and cursor are committed together: each URI of a manifest is in one chunk afterwards."""
    uris = [f"s3://archive/2024/{number:06}.jpg" for number in range(60_000)]
    manifest = tmp_path / "uris.txt"
    manifest.write_text("\n".join(uris))
    submit = ("submit", f"@{manifest}", "--model", "null", "--job", "archive")
    first = night.command("first", *submit)
    night.until(lambda: night.count("jobs WHERE images > 0"))
    first.kill()
    assert night.count("jobs WHERE images < 60000 AND cursor IS NOT NULL AND listed_at IS NULL") == 1
    night.run(*submit)
    assert night.ask("SELECT images, listings FROM jobs") == [(60_000, 1)]
    listed = [item.uri for (items,) in night.ask("SELECT item_list FROM chunks") for item in unpack_items(items)]
    assert sorted(listed) == uris
