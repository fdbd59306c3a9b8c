"""Trouble that is nobody's image: the source's pauses the job, the worker's stops it, and junk does neither."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from schemas.database import Database
from schemas.migrations import upgrade
from schemas.uris import file_uri
from tests.faults import s3_proxy as faults
from tests.faults.archive import Archive, the_line_of
from tests.faults.invariants import assert_sound
from tests.faults.s3_proxy import Fault, Request
from tests.pipeline.conftest import ROOT, Kosmograph, Run, jpeg
from worker.frames import RING_BYTES

LIMIT = 20
BREAKER = {"KOSMOGRAPH_BREAKER_IMAGES": str(LIMIT)}


def is_object(request: Request) -> bool:
    return request.is_object


def sound(kosmograph: Kosmograph, uris: list[str], *codes: str) -> None:
    database = Database(f"sqlite:///{kosmograph.folder / 'kosmograph.db'}")
    assert_sound(database, uris, codes=codes)
    database.close()


# ---- the source's trouble


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [(faults.ACCESS_DENIED, "the credentials need s3:GetObject"), (faults.EXPIRED_TOKEN, "renew them")],
    ids=["denied", "expired"],
)
def test_refused_credentials_pause_the_job_and_resume_goes_on(archive: Archive, fault: Fault, remedy: str) -> None:
    """Given credentials that end after the first ten objects, then fewer images than the limit bear the blame."""
    archive.fill(60)
    good: set[str] = set()

    def refused(request: Request) -> bool:
        if request.is_object and len(good) < 10:
            good.add(request.key)
        return request.is_object and request.key not in good

    archive.faults.add(fault, refused)
    # one after the other, else the ten may lie in as many chunks, each of them read in part
    in_order = BREAKER | {"KOSMOGRAPH_LOADER_PROCESSES": "1"}
    run = archive.annotate(**in_order)
    assert run.code == 1
    line = the_line_of(run)
    assert "the job is paused" in line
    assert remedy in line
    assert "kosmograph resume" in line
    blamed = archive.failed()
    assert set(blamed.values()) <= {"access_denied"}
    assert len(blamed) < LIMIT + 8  # those of the chunks in which others were still read
    assert archive.kosmograph.value("SELECT pending FROM progress") >= 60 - 10 - len(blamed)

    archive.faults.rules.clear()
    assert archive.kosmograph.here("resume", archive.kosmograph.value("SELECT job FROM progress")).code == 0
    run = archive.annotate(**BREAKER)
    assert run.code == (3 if blamed else 0), run.err
    assert archive.failed() == blamed
    archive.assert_sound("access_denied")


def test_wrong_bucket_pauses_the_job_and_costs_no_image(archive: Archive, tmp_path: Path) -> None:
    """Given a manifest of a bucket that is not there yet, when it is made, then the same command does all."""
    archive.fill(40)
    bucket = f"other-{archive.s3.bucket}"
    archive.uris = [uri.replace(archive.s3.bucket, bucket) for uri in archive.uris]
    manifest = archive.manifest(tmp_path)
    whole = BREAKER | {"KOSMOGRAPH_CHUNK_SIZE": "40"}
    run = archive.annotate(manifest, **whole)
    assert run.code == 1
    assert f"no such bucket: {bucket}; check the name" in the_line_of(run)
    assert archive.failed() == {}
    archive.s3.client.create_bucket(Bucket=bucket)
    for number in range(40):
        archive.s3.client.put_object(Bucket=bucket, Key=archive.key(number), Body=jpeg(number))
    run = archive.annotate(manifest, **whole)
    assert run.code == 0, run.err
    archive.assert_sound()


@pytest.mark.parametrize("fault", [faults.INTERNAL_ERROR, faults.reset], ids=["internal", "reset"])
def test_store_that_is_away_pauses_the_job_without_a_single_failure(
    archive: Archive, tmp_path: Path, fault: Fault
) -> None:
    archive.fill(24)
    archive.faults.add(fault, is_object)
    manifest = archive.manifest(tmp_path)
    run = archive.annotate(manifest, **BREAKER)
    assert run.code == 1
    assert "storage_unavailable" in the_line_of(run)
    assert archive.failed() == {}
    archive.faults.rules.clear()
    run = archive.annotate(manifest, **BREAKER)
    assert run.code == 0, run.err
    archive.assert_sound()


def test_archive_with_half_of_its_files_missing_trips_nothing(kosmograph: Kosmograph, photos: Path) -> None:
    for number in range(100):
        (photos / f"{number:03}.jpg").write_bytes(jpeg(number))
    missing = [file_uri(photos / f"missing-{number:03}.jpg") for number in range(100)]
    uris = list(chain.from_iterable(zip([file_uri(path) for path in sorted(photos.iterdir())], missing, strict=True)))
    manifest = kosmograph.folder / "list.txt"
    manifest.write_text("\n".join(uris))
    run = kosmograph.annotate(
        f"@{manifest}", "--root", str(photos), KOSMOGRAPH_BREAKER_IMAGES="8", KOSMOGRAPH_CHUNK_SIZE="8"
    )
    assert run.code == 3, run.err
    assert {row["uri"] for row in kosmograph.sql("SELECT uri FROM failures WHERE code = 'not_found'")} == set(missing)
    sound(kosmograph, uris, "not_found")


def test_folder_of_junk_trips_nothing(kosmograph: Kosmograph, photos: Path) -> None:
    """A thousand files that are no pictures, each told what it is."""
    whole = jpeg(1, (640, 480))
    junk = {
        "empty_file": b"",
        "not_an_image": b"This is a letter and no picture.\n" * 20,
        "truncated": whole[: len(whole) // 2],
        "unsupported_format": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    }
    for number in range(250):
        for code, data in junk.items():
            (photos / f"{code}-{number:03}.jpg").write_bytes(data)
    run = kosmograph.annotate(str(photos), KOSMOGRAPH_BREAKER_IMAGES="1")
    assert run.code == 3, run.err
    rows = kosmograph.sql("SELECT uri, code FROM failures")
    assert all(row["code"] == row["uri"].rpartition("/")[2].rpartition("-")[0] for row in rows)
    sound(kosmograph, [file_uri(path) for path in photos.iterdir()], *junk)


# ---- the worker's trouble


def test_broken_model_stops_the_run_and_blames_no_image(kosmograph: Kosmograph, photos: Path, tmp_path: Path) -> None:
    """Given weights that a disk has damaged, when the folder is whole again, then the same command goes on."""
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes(jpeg(number))
    model = tmp_path / "model"
    shutil.copytree(ROOT / "worker" / "demo", model)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(with_damage_in_the_largest_tensor(whole))
    command = (str(photos), "--model", str(model), "--dtype", "float32", "--device", "cpu")
    run = kosmograph.annotate(*command)
    assert run.code == 1
    assert "the model gives NaN for every image" in the_line_of(run)
    assert kosmograph.value("SELECT COUNT(*) FROM outcomes") == 0
    assert kosmograph.value("SELECT MAX(crashes) + MAX(tries) FROM chunks") == 0
    weights.write_bytes(whole)
    run = kosmograph.annotate(*command)
    assert run.code == 0, run.err
    sound(kosmograph, [file_uri(path) for path in photos.iterdir()])


def with_damage_in_the_largest_tensor(weights: bytes) -> bytes:
    """NaN where the model's revision does not look, since it reads samples of what is large (`folder_revision`)."""
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    first, end = max(spans, key=lambda span: span[1] - span[0])
    start, middle = 8 + length + first, (end - first) // 2
    damaged = bytearray(weights)
    for begin, stop in ((1 << 15, middle), (middle + (1 << 15), end - first - (1 << 15))):
        damaged[start + begin : start + stop] = b"\xff" * (stop - begin)
    return bytes(damaged)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of so many bytes, made the first time and then made larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(size: str) -> Path:
        remount = ["-o", f"remount,size={size}"] if place.is_mount() else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
        done = subprocess.run(["mount", *remount, place], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    yield resize
    if place.is_mount():
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_full_disk_stops_the_run_and_blames_no_image(
    kosmograph: Kosmograph, many: Callable[[int], Path], small_disk: Callable[[str], Path]
) -> None:
    """Given a disk too small for the database, when there is room, then the same command goes on."""
    folder = many(400)
    database = {"KOSMOGRAPH_DB": f"sqlite:///{small_disk('900k') / 'kosmograph.db'}", "KOSMOGRAPH_CHUNK_SIZE": "8"}
    run = kosmograph.annotate(str(folder), **database)
    assert run.code == 1
    assert_told_of_the_database(run)
    small_disk("64m")
    run = kosmograph.annotate(str(folder), **database)
    assert run.code == 0, run.err
    place = Database(database["KOSMOGRAPH_DB"])
    assert_sound(place, [file_uri(path) for path in folder.iterdir()])
    place.close()


def test_file_that_may_not_grow_stops_the_run_and_blames_no_image(
    kosmograph: Kosmograph, many: Callable[[int], Path]
) -> None:
    """The same by a limit of the process (RLIMIT_FSIZE), as a quota would have it; loaders' memory is within."""
    folder = many(800)
    place = Database(f"sqlite:///{kosmograph.folder / 'kosmograph.db'}")
    upgrade(place)
    with place.write() as connection:  # as large as may be: what comes now stays in the log, until that is full too
        connection.exec_driver_sql("CREATE TABLE padding (bytes BLOB)")
        connection.exec_driver_sql("INSERT INTO padding VALUES (zeroblob(?))", (RING_BYTES,))
    place.close()
    small = {"KOSMOGRAPH_CHUNK_SIZE": "8"}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (RING_BYTES + 4096, before[1]))
    try:
        run = kosmograph.annotate(str(folder), **small)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.code == 1
    assert_told_of_the_database(run)
    run = kosmograph.annotate(str(folder), **small)
    assert run.code == 0, run.err
    sound(kosmograph, [file_uri(path) for path in folder.iterdir()])


def assert_told_of_the_database(run: Run) -> None:
    line = the_line_of(run)
    assert "the database does not do its part: " in line
    assert "the same command goes on" in line
