"""Files that a manifest has no business with, and files that block: nothing of them arrives anywhere, work goes on."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import Code, ImageFailure, SourceError
from schemas.roots import Roots
from schemas.uris import file_uri
from worker.fetch import read_file
from worker.images import Limits

PLANTED = "planted-2f9c41"


def everything(folder: Path) -> bytes:
    """All bytes of all files in a folder: a database with its journal, say."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def traps(photos: Path, tmp_path: Path, picture: Callable[..., bytes]) -> dict[str, str]:
    """Rows of a manifest in `photos`, each with the code that it must end with."""
    (photos / "good.jpg").write_bytes(picture(1))
    (tmp_path / "secret.txt").write_text(PLANTED)
    (tmp_path / "secret.jpg").write_bytes(picture(2) + PLANTED.encode())
    (photos / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (photos / "hall").symlink_to(tmp_path)
    (photos / "folder.jpg").mkdir()
    os.mkfifo(photos / "pipe.jpg")
    (photos / "pipe-link.jpg").symlink_to("pipe.jpg")
    place = file_uri(photos)
    return {
        "../secret.jpg": "access_denied",
        f"{place}/../secret.jpg": "access_denied",
        f"{place}/%2e%2e/secret.jpg": "access_denied",
        f"{place}/%2e%2e%2fsecret.txt": "access_denied",
        file_uri(tmp_path / "secret.txt"): "access_denied",
        "out.jpg": "access_denied",
        "hall/secret.jpg": "access_denied",
        "hall/no-such-file": "access_denied",
        f"{place}/hall/../secret.jpg": "not_found",  # `..` is resolved as text: it stays in the folder
        "/proc/self/environ": "access_denied",
        "/proc/self/cwd/kosmograph.db": "access_denied",
        "/dev/zero": "access_denied",
        "/dev/stdin": "access_denied",
        "pipe.jpg": "not_an_image",
        "pipe-link.jpg": "not_an_image",
        "socket.jpg": "not_an_image",
        "folder.jpg": "not_an_image",
        "none.jpg": "not_found",
        f"{place}/a%00b.jpg": "not_found",
        "file://elsewhere/etc/passwd": "not_found",
    }


def test_manifest_reads_nothing_outside_its_folder_and_nothing_blocks(
    kosmograph: Any, photos: Path, tmp_path: Path, traps: dict[str, str]
) -> None:
    (photos / "list.txt").write_text("\n".join(["good.jpg", *traps]) + "\n/a\0b.jpg\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(photos / "socket.jpg"))
        run = kosmograph.annotate(f"@{photos}/list.txt", PASSWORD=PLANTED)
    assert run.code == 3, run.err
    failures = kosmograph.sql("SELECT uri, code, message FROM failures ORDER BY image_id")
    codes = {row["uri"]: row["code"] for row in failures}
    expected: dict[str, str] = {}
    for written, code in traps.items():
        uri = written if written.startswith("file://elsewhere") or "%00" in written else as_stored(written, photos)
        expected[uri] = code
    assert codes == expected
    assert kosmograph.value("SELECT COUNT(*) AS n FROM captions") == 1
    assert json.loads(kosmograph.value("SELECT roots FROM jobs")) == [str(photos)]
    secret = hashlib.sha256((tmp_path / "secret.jpg").read_bytes()).hexdigest()
    left = everything(kosmograph.folder) + run.out.encode() + run.err.encode() + json.dumps(failures).encode()
    assert PLANTED.encode() not in left
    assert secret.encode() not in left


def as_stored(written: str, photos: Path) -> str:
    from schemas.uris import absolute_uri

    return absolute_uri(written, photos)


def test_first_file_outside_is_told_at_once_with_the_remedy(
    kosmograph: Any, photos: Path, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    other = tmp_path / "other place"
    other.mkdir()
    (other / "a.jpg").write_bytes(picture(1))
    (photos / "list.txt").write_text(f"{other}/a.jpg\n")
    run = kosmograph.annotate(f"@{photos}/list.txt")
    assert (run.code, len(run.err.splitlines())) == (1, 1)
    assert f"outside the folders that this job may read ({photos}); --root '{other}' adds one" in run.err
    assert not (kosmograph.folder / "kosmograph.db").exists()
    run = kosmograph.annotate(f"@{photos}/list.txt", "--root", str(other))
    assert run.code == 0, run.err
    assert json.loads(kosmograph.value("SELECT roots FROM jobs")) == sorted([str(photos), str(other)])


def test_reopened_job_keeps_the_folders_that_its_waiting_chunks_need(
    kosmograph: Any, photos: Path, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (photos / "a.jpg").write_bytes(picture(1))
    (other / "b.jpg").write_bytes(picture(2))
    named = ("--job", "both", "--model", "null")
    for source in (photos, other / "b.jpg"):
        assert kosmograph("submit", str(source), *named).code == 0
    assert json.loads(kosmograph.value("SELECT roots FROM jobs")) == sorted([str(photos), str(other)])


def test_standard_input_reads_below_the_working_directory(
    kosmograph: Any, photos: Path, picture: Callable[..., bytes]
) -> None:
    (photos / "a.jpg").write_bytes(picture(1))
    command = [sys.executable, "-P", "-m", "kosmograph", "annotate", "-", "--model", "null"]
    db = f"sqlite:///{kosmograph.folder}/kosmograph.db"
    options = {"capture_output": True, "text": True, "input": f"{photos}/a.jpg\n", "timeout": 120, "check": False}
    elsewhere = subprocess.run([*command, "--db", db], cwd=kosmograph.folder, **options)  # type: ignore[call-overload]
    assert (elsewhere.returncode, "--root" in elsewhere.stderr) == (1, True)
    there = subprocess.run([*command, "--db", db], cwd=photos, **options)  # type: ignore[call-overload]
    assert there.returncode == 0, there.stderr


@pytest.mark.parametrize("root", ["", "a\0b"])
def test_root_that_is_no_folder_is_wrong_usage(root: str, photos: Path) -> None:
    from kosmograph.prompts import Prompts
    from kosmograph.requests import Request, roots_of
    from schemas.errors import UsageError

    with pytest.raises(UsageError, match="--root takes a folder"):
        roots_of(Request([], Prompts(), "null", roots=[root]), [])


def test_numbers_of_files_outside_pause_the_job_with_the_remedy(
    kosmograph: Any, photos: Path, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    (photos / "a.jpg").write_bytes(picture(1))
    (photos / "list.txt").write_text("\n".join(["a.jpg", *(f"{tmp_path}/{number}.jpg" for number in range(60))]))
    limits = {"KOSMOGRAPH_BREAKER_IMAGES": "20", "KOSMOGRAPH_CHUNK_SIZE": "8"}
    run = kosmograph.annotate(f"@{photos}/list.txt", **limits)
    assert run.code == 1
    assert "--root FOLDER" in kosmograph.value("SELECT reason FROM jobs")


def test_file_that_is_swapped_for_a_link_while_it_is_read_tells_nothing(limits: Limits, tmp_path: Path) -> None:
    """Another thread swaps, as fast as it can; whatever is read is the file's own, or refused."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.jpg").write_text(PLANTED)
    (inside / "own").write_bytes(b"own picture")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for make in (lambda at: os.symlink("../secret.jpg", at), lambda at: os.link(inside / "own", at)):
                make(inside / "new")
                os.replace(inside / "new", inside / "a.jpg")
                with suppress(FileNotFoundError):  # two names of one file: replacing does nothing
                    os.unlink(inside / "new")

    (inside / "a.jpg").write_bytes(b"own picture")
    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(read_file(str(inside / "a.jpg"), limits, Roots([str(inside)])).data)
            except ImageFailure as failure:
                seen.add(failure.code)
    finally:
        stop.set()
        thread.join()
    assert b"own picture" in seen
    assert Code.ACCESS_DENIED in seen
    assert not any(isinstance(one, bytes) and one != b"own picture" for one in seen)


def test_root_that_is_a_link_leads_elsewhere_when_the_link_does(limits: Limits, tmp_path: Path) -> None:
    """As where each release of a dataset is a folder, and `current` one of them."""
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "a.jpg").write_text(release)
    current, new = tmp_path / "current", tmp_path / "new"
    roots, seen = Roots([str(current)]), []
    for release in ("r1", "r2"):
        new.symlink_to(release)
        new.replace(current)
        seen.append(read_file(str(current / "a.jpg"), limits, roots).data)
    assert seen == [b"r1", b"r2"]
    with pytest.raises(ImageFailure, match="outside"):
        read_file(str(tmp_path / "r1" / "a.jpg"), limits, roots)


def test_job_without_local_sources_reads_no_file(limits: Limits, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(ImageFailure) as failure:
        read_file(str(tmp_path / "a.jpg"), limits, Roots([]))
    assert failure.value.code == Code.ACCESS_DENIED


def test_sources_say_their_roots(tmp_path: Path, photos: Path, picture: Callable[..., bytes]) -> None:
    from producer.sources import Filters, StorageOptions, open_sources

    (photos / "a.jpg").write_bytes(picture(1))
    (photos / "list.txt").write_text("a.jpg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.jpg").symlink_to(photos / "a.jpg")

    def roots(spec: object) -> list[str]:
        (source,) = open_sources([str(spec)], Filters(), StorageOptions(allow_http=True), tmp_path)
        return list(source.roots)

    assert roots(photos) == roots(f"{photos}/") == roots(f"{photos}/*.jpg") == roots(f"@{photos}/list.txt")
    assert roots(photos) == [str(photos)]
    assert roots(photos / "a.jpg") == roots(elsewhere / "link.jpg") == [str(photos)]
    assert roots("https://example.com/a.jpg") == []
    with pytest.raises(SourceError):
        roots(tmp_path / "none")
