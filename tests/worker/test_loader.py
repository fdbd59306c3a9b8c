"""The loader: real processes that are killed, stopped and starved, and images that all come back."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import worker
from schemas.errors import Code, ImageFailure, PermanentFailure, SetupError, TransientFailure
from schemas.storage import StorageOptions
from worker import loader_link
from worker.images import Limits, LoadedImage, decode
from worker.loader import Loader

ROOT = Path(worker.__file__).parent.parent
NewLoader = Callable[..., Loader]
FileUri = Callable[[Any], str]


@pytest.fixture
def files(tmp_path: Path, photograph: Callable[..., Image.Image], encoded: Callable[..., bytes]) -> Callable[..., Any]:
    """`files(n)`: the paths of n different small photographs."""

    def write(count: int) -> list[Path]:
        paths = [tmp_path / f"{number}.jpg" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(encoded(photograph(60 + number, 50)))
        return paths

    return write


@pytest.fixture
def slow(tmp_path: Path, file_uri: FileUri) -> str:
    """The URI of a file whose header takes Pillow seconds: a JPEG of megabytes of fill."""
    path = tmp_path / "slow.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0\0\2" + b"\xff" * 30_000_000)
    return file_uri(path)


def failure_of(future: Future[LoadedImage]) -> ImageFailure:
    failure = future.exception(60)
    assert isinstance(failure, ImageFailure)
    return failure


def children() -> list[psutil.Process]:
    """The loader processes of this test."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if "worker.loader_process" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_for(condition: Callable[[], Any], limit_s: float = 20) -> Any:
    """What the condition gives once it is true."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return value


def busy(loader: Loader) -> psutil.Process:
    """The one process, once it has begun with an image that takes long."""
    [child] = wait_for(children)
    wait_for(lambda: child.cpu_times().user > 0.5)
    return child


def test_loaded_image_is_the_decoded_one_with_its_identity(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, limits: Limits
) -> None:
    [path] = files(1)
    data = path.read_bytes()
    image = new_loader().load(file_uri(path)).result(60)
    expected = decode(data, limits)
    assert image.pixels.tobytes() == expected.pixels
    assert (image.pixels.shape, image.pixels.dtype, image.pixels.flags.writeable) == ((224, 224, 3), np.uint8, True)
    assert (image.width, image.height, image.format, image.size) == (60, 50, "JPEG", len(data))
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.version == f"{path.stat().st_mtime_ns}:{len(data)}"


def test_exact_is_asked_for_each_image(
    new_loader: NewLoader, tmp_path: Path, photograph: Any, encoded: Any, file_uri: FileUri, limits: Limits
) -> None:
    data = encoded(photograph(1351, 919))
    (tmp_path / "a.jpg").write_bytes(data)
    loader, uri = new_loader(), file_uri(tmp_path / "a.jpg")
    for exact in (False, True, False):
        assert loader.load(uri, exact=exact).result(60).pixels.tobytes() == decode(data, limits, exact=exact).pixels


def test_every_future_gets_its_own_image_or_its_own_failure(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("words")
    loader = new_loader(2)
    paths = files(100)
    good = [loader.load(file_uri(path)) for path in paths]
    bad = [loader.load(uri) for uri in [file_uri(tmp_path / "text.jpg"), "file:///none", "http://a"] * 20]
    assert [future.result(60).width for future in good] == [60 + number for number in range(100)]
    expected = [Code.NOT_AN_IMAGE, Code.NOT_FOUND, Code.ACCESS_DENIED] * 20
    assert [failure_of(future).code for future in bad] == expected
    assert failure_of(bad[0]).version == f"{(tmp_path / 'text.jpg').stat().st_mtime_ns}:5"


def test_very_long_uris_block_nobody(new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri) -> None:
    loader = new_loader()
    uris = [file_uri(path) for path in files(60)]
    futures = [
        loader.load(uri) for uri in uris + ["file:///" + "x" * length for length in (12_200, 10**7)] * 100 + uris
    ]
    codes = [None if future.exception(60) is None else failure_of(future).code for future in futures]
    assert codes == [None] * 60 + [Code.NOT_FOUND] * 200 + [None] * 60


def test_object_is_loaded_with_its_etag(s3: Any, new_loader: NewLoader, files: Callable[..., Any]) -> None:
    [path] = files(1)
    uri = s3.put("a b/ü+%41.jpg", path.read_bytes())
    loader = new_loader(storage=StorageOptions(s3.endpoint))
    image = loader.load(uri).result(60)
    assert (image.width, len(image.version)) == (60, 32)
    missing = failure_of(loader.load(f"s3://{s3.bucket}/none"))
    assert (type(missing), missing.code) == (PermanentFailure, Code.NOT_FOUND)


def test_killed_process_costs_nothing_but_a_retry(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri
) -> None:
    loader = new_loader(2)
    uris = [file_uri(path) for path in files(50)] * 8
    futures = [loader.load(uri) for uri in uris]
    for kill in range(3):
        wait_for(lambda done=kill * 60 + 20: sum(future.done() for future in futures) >= done)
        children()[0].kill()
    assert [future.result(60).width for future in futures] == [60 + number for number in range(50)] * 8
    assert loader.figures().replaced >= 1


def test_process_that_ended_while_idle_is_no_fault_of_the_next_image(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which then meets a process that dies over it, and has another chance."""
    loader, [path] = new_loader(), files(1)
    assert loader.load(file_uri(path)).result(60)
    [child] = children()
    died = tmp_path / "died"
    once = f"import os, sys\nif os.path.exists({str(died)!r}):\n    {loader_link.BOOT}; sys.exit()\n"
    monkeypatch.setattr(loader_link, "BOOT", f"{once}open({str(died)!r}, 'w').close()\n{HOSTILE}")
    child.kill()
    wait_for(lambda: child.status() == psutil.STATUS_ZOMBIE)
    assert loader.load(file_uri(path)).result(60).width == 60
    assert (loader.figures().replaced, died.exists()) == (2, True)


def test_image_that_kills_twice_fails_alone(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, slow: str
) -> None:
    """Given one process with an image in work and others behind it, when it is killed twice over that image."""
    loader = new_loader()
    culprit = loader.load(slow)
    neighbours = [loader.load(file_uri(path)) for path in files(40)]
    first = busy(loader)
    first.send_signal(signal.SIGRTMIN + 6)  # which has no name
    wait_for(lambda: [child for child in children() if child.pid != first.pid])
    busy(loader).kill()
    failure = failure_of(culprit)
    assert (type(failure), failure.code) == (PermanentFailure, Code.DECODER_CRASHED)
    assert "SIGKILL" in failure.message
    assert failure.version
    assert [future.result(60).width for future in neighbours] == [60 + number for number in range(40)]
    assert loader.figures().replaced == 2


def test_decoding_that_takes_too_long_is_ended(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, slow: str
) -> None:
    loader = new_loader(decode_timeout_s=0.5)
    future = loader.load(slow)
    neighbours = [loader.load(file_uri(path)) for path in files(10)]
    failure = failure_of(future)
    assert (type(failure), failure.code) == (PermanentFailure, Code.TIMEOUT)
    assert failure.version.endswith(":30000006")
    assert all(neighbour.result(60) for neighbour in neighbours)


def test_fetching_that_hangs_is_ended_and_tried_later(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri
) -> None:
    """A stopped process stands for one that sleeps in the kernel over a dead file server."""
    loader = new_loader(fetch_timeout_s=0.3)
    [path] = files(1)
    assert loader.load(file_uri(path)).result(60)
    [child] = children()
    child.send_signal(signal.SIGSTOP)
    more_than_a_socket_takes = [str(path.parent)] * 50_000
    failure = failure_of(loader.load(file_uri(path), roots=more_than_a_socket_takes))
    assert (type(failure), failure.code) == (TransientFailure, Code.TIMEOUT)
    assert loader.load(file_uri(path)).result(60)
    assert loader.figures().replaced == 1


def test_image_that_needs_too_much_memory_is_too_large(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, tmp_path: Path, encoded: Any
) -> None:
    (tmp_path / "large.png").write_bytes(encoded(Image.new("RGB", (5000, 5000)), "PNG"))
    loader = new_loader(max_memory_bytes=50 << 20)
    failure = failure_of(loader.load(file_uri(tmp_path / "large.png")))
    assert (type(failure), failure.code) == (PermanentFailure, Code.TOO_LARGE)
    assert "KOSMOGRAPH_MAX_MEMORY_BYTES" in failure.message
    assert loader.load(file_uri(files(1)[0])).result(60)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
def test_nine_bytes_for_a_pixel_are_enough(
    mode: str, new_loader: NewLoader, tmp_path: Path, encoded: Any, file_uri: FileUri
) -> None:
    """So by default every common image that keeps the limit of pixels keeps that of memory."""
    exif = Image.Exif()
    exif[0x0112] = 6 if mode == "RGB" else 1
    kind = "TIFF" if mode == "CMYK" else "PNG"
    (tmp_path / "a").write_bytes(encoded(Image.new(mode, (3000, 3000)), kind, exif=exif, compression="tiff_deflate"))
    loader = new_loader(max_memory_bytes=9 * 3000 * 3000)
    assert loader.load(file_uri(tmp_path / "a"), exact=True).result(60).width == 3000


def test_processes_ignore_signals_that_are_meant_for_the_worker(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri
) -> None:
    loader = new_loader()
    [path] = files(1)
    assert loader.load(file_uri(path)).result(60)
    [child] = children()
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)
    assert loader.load(file_uri(path)).result(60)
    assert children() == [child]
    assert os.getpgid(child.pid) != os.getpgid(0)


def test_queued_load_can_be_cancelled(new_loader: NewLoader, slow: str, file_uri: FileUri, tmp_path: Path) -> None:
    loader = new_loader(decode_timeout_s=1.0)
    first, second = loader.load(slow), loader.load("file:///none")
    wait_for(first.running)
    if not second.running():
        assert second.cancel()
    assert failure_of(first).code == Code.TIMEOUT
    third = loader.load("file:///none")
    assert failure_of(third).code == Code.NOT_FOUND


def test_loader_that_breaks_lets_nobody_wait(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours is the worker's fault: every image that the broken part has, or gets, fails with SetupError."""

    def broken(*_: object) -> None:
        raise NameError("no such name")

    monkeypatch.setattr("worker.loader.settle", broken)
    loader = new_loader()
    uris = [file_uri(path) for path in files(10)]
    for future in [*[loader.load(uri) for uri in uris], loader.load(uris[0])]:
        with pytest.raises(SetupError, match="NameError: no such name"):
            future.result(30)
    wait_for(lambda: children() == [])
    with pytest.raises(SetupError, match="NameError: no such name"):
        loader.load(uris[0]).result(30)


def test_closing_cancels_what_has_not_ended_and_leaves_no_process(new_loader: NewLoader, slow: str) -> None:
    loader = new_loader(2)
    futures = [loader.load(slow) for _ in range(20)]
    wait_for(lambda: len(children()) == 2 and any(future.running() for future in futures))
    loader.close()
    assert children() == []
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(0)
    with pytest.raises(RuntimeError):
        loader.load("file:///none")


def test_figures_tell_of_processes_and_queue(new_loader: NewLoader, slow: str) -> None:
    loader = new_loader(2)
    wait_for(lambda: loader.figures().processes == 2)
    for _ in range(10):
        loader.load(slow)
    wait_for(lambda: loader.figures().queued < 10)
    assert 6 <= loader.figures().queued <= 8
    assert loader.figures().replaced == 0


def test_process_that_cannot_start_is_no_fault_of_an_image(
    new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SetupError, match="no loader process comes up"):
        new_loader().load("file:///none").result(60)


def test_failed_start_leaves_no_descriptor_open(new_loader: NewLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    before = psutil.Process().num_fds()
    monkeypatch.setattr(socket, "socketpair", fail)
    with pytest.raises(SetupError, match="no loader process comes up"):
        new_loader().load("file:///none").result(60)
    assert psutil.Process().num_fds() == before


def test_roots_are_those_of_each_image_and_told_when_they_change(
    new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[bytes] = []

    def packet(message: bytes) -> bytes:
        messages.append(message)
        return usual(message)

    usual = loader_link.packet
    monkeypatch.setattr(loader_link, "packet", packet)
    loader, [path] = new_loader(), files(1)
    here, there = [str(tmp_path)], [str(tmp_path / "there")]
    asked = [here, list(here), there, [], None, None, here, here]
    futures = [loader.load(file_uri(path), roots=roots) for roots in asked]
    assert [future.exception(60) is None for future in futures] == [roots in (here, None) for roots in asked]
    assert {failure_of(future).code for future in futures[2:4]} == {Code.ACCESS_DENIED}
    assert [json.loads(message)[2:] for message in messages[1:]] == [[here], [], [there], [[]], [None], [], [here], []]


HOSTILE = """
import json, os, socket, sys, time
sys.path.insert(0, sys.argv[2])
from worker.frames import DONE, FACTS, FRAME_BYTES, NOTE, REPLY_AT, frame_at
from worker.loader_process import HELLO
channel, ring = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[3])
def reply(text=b"", facts=bytes(FACTS.size), number=1):
    os.pwrite(ring, NOTE.pack(number, float("nan"), -1.0, b""), frame_at(0))
    os.pwrite(ring, facts + text.ljust(2000), frame_at(0) + REPLY_AT)
    os.pwrite(ring, DONE.pack(1), 0)
def image(width, height, size, kind=b"JPEG"):
    return FACTS.pack(width, height, size, kind, bytes(32), b"")
channel.recv(100_000)
channel.sendall(HELLO)
channel.recv(100_000)
"""

TOOK_OVER = {
    "says that more is done than was asked": "os.pwrite(ring, DONE.pack(2**64 - 1), 0)",
    "says nothing": "reply()",
    "claims a width beyond all": "reply(facts=image(2**32 - 1, 1, 9))",
    "claims no height": "reply(facts=image(60, 0, 9))",
    "claims bytes beyond all": "reply(facts=image(60, 50, 2**64 - 1))",
    "names a format that no database holds": "reply(facts=image(60, 50, 9, b'J\\0G'))",
    "hands over the frame of another image": "reply(facts=image(60, 50, 9), number=2)",
    "says what is no failure": "reply(json.dumps({'code': [], 'message': {}, 'permanent': 1, 'version': 2}).encode())",
    "nests without end": "reply(b'[' * 2000)",
    "cuts its frames off": "reply(b''); os.ftruncate(ring, 64)",
    "cuts everything off": "os.ftruncate(ring, 0); sys.exit(3)",
    "was fetched after no number of seconds": "os.pwrite(ring, NOTE.pack(1, float('nan'), 0.0, b'v'), frame_at(0))",
}


@pytest.mark.parametrize("doing", TOOK_OVER)
def test_decoder_that_was_taken_over_costs_its_image_and_no_more(
    doing: str, new_loader: NewLoader, files: Callable[..., Any], file_uri: FileUri, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = loader_link.BOOT
    monkeypatch.setattr(loader_link, "BOOT", f"{HOSTILE}{TOOK_OVER[doing]}; channel.sendall(b'..'); time.sleep(60)")
    loader = new_loader(decode_timeout_s=0.5)
    [path] = files(1)
    failure = failure_of(loader.load(file_uri(path)))
    assert failure.code == (Code.TIMEOUT if "fetched" in doing else Code.DECODER_CRASHED)
    monkeypatch.setattr(loader_link, "BOOT", usual)
    for child in wait_for(children):  # also one that has just been started to replace another
        child.kill()
    assert loader.load(file_uri(path)).result(60).width == 60


PARENT = """
    import json, sys
    from schemas.storage import StorageOptions
    from worker.images import Limits
    from worker.loader import Loader

    if __name__ == "__main__":
        loader = Loader(Limits(**json.loads(sys.argv[1])), 1, StorageOptions())
        image = loader.load(sys.argv[2])
        if len(sys.argv) > 3:
            print("loading", flush=True)
        print(json.dumps(image.result(60).width), flush=True)
"""


def start_parent(folder: Path, limits: Limits, *arguments: str) -> subprocess.Popen[str]:
    (folder / "main.py").write_text(textwrap.dedent(PARENT))
    command = [sys.executable, "-P", "main.py", json.dumps(asdict(limits)), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)


def test_modules_in_the_users_folder_and_its_main_do_no_harm(
    tmp_path: Path, files: Callable[..., Any], file_uri: FileUri, limits: Limits
) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("worker", "schemas", "json", "PIL", "socket"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    with start_parent(folder, limits, file_uri(files(1)[0])) as parent:
        output, _ = parent.communicate(timeout=60)
    assert (parent.returncode, output) == (0, "60\n")


def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path, limits: Limits, slow: str) -> None:
    with start_parent(tmp_path, limits, slow, "tell") as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "loading\n"
        [child] = wait_for(lambda: psutil.Process(parent.pid).children())
        parent.kill()
    wait_for(lambda: not child.is_running())


def test_process_imports_nothing_heavy() -> None:
    """And so starts in a fraction of a second, and needs 30 MB."""
    code = "import sys, worker.loader_process; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "transformers", "celery", "redis", "sqlalchemy", "pydantic", "boto3", "botocore", "numpy"}
    assert not heavy & set(output.split())


def test_what_a_decoder_prints_does_not_reach_standard_output(tmp_path: Path) -> None:
    code = "import os, worker.loader_process as p; p.protect(); os.write(1, b'noise')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "noise")
