"""Bad files among good ones: each ends as a failure with its code, and every neighbour is annotated."""

import json
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import Code
from tests.pipeline.conftest import Kosmograph, Run, jpeg
from tests.producer.hook import Hook


def bomb() -> bytes:
    """A PNG of a few dozen bytes whose header claims 60,000 × 60,000 pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def mixed(photos: Path) -> dict[str, Code]:
    """Twenty good pictures in a folder with bad ones; the bad ones' names and codes."""
    for number in range(20):
        (photos / f"good-{number:02}.jpg").write_bytes(jpeg(number))
    whole = jpeg(100, (640, 480))
    bad = {
        "corrupt.jpg": (whole[:2] + b"\x00" * 400, Code.NOT_AN_IMAGE),
        "truncated.jpg": (whole[: len(whole) // 2], Code.TRUNCATED),
        "empty.jpg": (b"", Code.EMPTY_FILE),
        "text.jpg": (b"This is a letter and no picture.\n" * 20, Code.NOT_AN_IMAGE),
        "bomb.png": (bomb(), Code.TOO_LARGE),
        "drawing.jpg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', Code.UNSUPPORTED_FORMAT),
    }
    for name, (data, _) in bad.items():
        (photos / name).write_bytes(data)
    return {name: code for name, (_, code) in bad.items()}


@pytest.fixture(scope="module")
def done(new_kosmograph: Callable[[], Kosmograph], photos: Path, mixed: dict[str, Code]) -> tuple[Kosmograph, Run]:
    """The run over all of them, where it was, and how it ended."""
    kosmograph = new_kosmograph()
    return kosmograph, kosmograph.annotate(str(photos), "--job", "mixed", "--notify", "sh -c 'cat > told.json'")


def test_bad_files_fail_alone_with_their_codes(done: tuple[Kosmograph, Run], mixed: dict[str, Code]) -> None:
    kosmograph, run = done
    assert run.code == 3, run.err
    assert "26 images, 20 annotated, 0 reused, 6 failed" in run.out
    assert "kosmograph failures mixed" in run.out
    failures = kosmograph.sql("SELECT * FROM failures")
    assert {row["uri"].rpartition("/")[2]: row["code"] for row in failures} == mixed
    assert all(row["message"] for row in failures)
    assert kosmograph.value("SELECT COUNT(*) FROM captions") == 20


def test_command_is_told_of_the_end_with_the_failures_by_code(
    done: tuple[Kosmograph, Run], mixed: dict[str, Code]
) -> None:
    told = json.loads((done[0].folder / "told.json").read_text())
    assert (told["job"], told["state"], told["annotated"]) == ("mixed", "finished", 20)
    assert told["failures"] == Counter(mixed.values())


def test_failures_command_shows_each_with_its_reason(done: tuple[Kosmograph, Run], mixed: dict[str, Code]) -> None:
    run = done[0]("failures", "mixed")
    assert run.code == 0
    for name, code in mixed.items():
        assert name in run.out
        assert code in run.out


def test_strict_stops_at_the_first_failure(kosmograph: Kosmograph, photos: Path, mixed: dict[str, Code]) -> None:
    """Whoever is to be told of it and does not take it changes nothing of that."""
    hook = Hook()
    hook.answers = [404]
    try:
        run = kosmograph.annotate(str(photos), "--job", "mixed", "--strict", KOSMOGRAPH_NOTIFY=hook.url)
    finally:
        hook.close()
    assert run.code == 1
    assert "--strict" in run.err
    assert [told["state"] for told in hook.told] == ["paused"]
    assert "it answers 404" in run.err
    assert "hunter2" not in run.err + run.out
    assert kosmograph.value("SELECT state FROM jobs") == "paused"


def test_failures_are_not_tried_again_until_retry(
    done: tuple[Kosmograph, Run], kosmograph: Kosmograph, photos: Path, mixed: dict[str, Code]
) -> None:
    """In a copy of the database; one of the files is a picture by then."""
    shutil.copytree(done[0].folder, kosmograph.folder, dirs_exist_ok=True)
    first = kosmograph.sql("SELECT * FROM outcomes WHERE code IS NOT NULL ORDER BY image_id")
    quiet = kosmograph.annotate(str(photos), "--job", "mixed", "--quiet")
    assert (quiet.code, quiet.out) == (3, ""), "what the last night has told of is not told again"
    assert kosmograph.sql("SELECT * FROM outcomes WHERE code IS NOT NULL ORDER BY image_id") == first
    (photos / "empty.jpg").write_bytes(jpeg(200))
    assert kosmograph.here("retry", "mixed", "--code", "empty_file").code == 0
    run = kosmograph.annotate(str(photos), "--job", "mixed")
    (photos / "empty.jpg").write_bytes(b"")
    assert run.code == 3
    assert "26 images, 21 annotated, 0 reused, 5 failed\n  new:       1, of which 0 failed\n" in run.out
    left = {row["uri"].rpartition("/")[2] for row in kosmograph.sql("SELECT uri FROM failures")}
    assert left == set(mixed) - {"empty.jpg"}
