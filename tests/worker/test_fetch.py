"""Fetching: real files of every kind, a real S3 endpoint, and servers that misbehave."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import Code, ImageFailure, PermanentFailure, TransientFailure
from schemas.storage import StorageOptions
from worker.fetch import Fetched, Fetcher, read_file
from worker.images import Limits
from worker.s3 import refusal

FileUri = Callable[[Any], str]


@pytest.fixture
def fetcher(limits: Limits) -> Fetcher:
    return Fetcher(limits, StorageOptions())


def failure_of(fetcher: Fetcher, uri: str) -> ImageFailure:
    with pytest.raises(ImageFailure) as failure:
        fetcher.fetch(uri)
    return failure.value


# Disk


def test_file_comes_with_the_version_that_its_status_tells(fetcher: Fetcher, file_uri: FileUri, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"some bytes")
    status = path.stat()
    assert fetcher.fetch(file_uri(path)) == Fetched(b"some bytes", f"{status.st_mtime_ns}:10")


NAMES = [
    "a b",
    "a+b",
    "100%",
    "%41",
    "a#b",
    "a?b",
    "å",
    "a\u030a",
    "🖼️",
    "'\"",
    "new\nline",
    "tab\t",
    "-rf",
    "\\",
    "x" * 255,
]


@pytest.mark.parametrize("name", [*(name.encode() for name in NAMES), b"\xff\xfe not utf-8"])
def test_every_file_name_has_a_uri(name: bytes, fetcher: Fetcher, file_uri: FileUri, tmp_path: Path) -> None:
    path = os.path.join(bytes(tmp_path), name)
    with open(path, "wb") as file:
        file.write(name)
    assert fetcher.fetch(file_uri(path)).data == name


@given(st.binary(min_size=1, max_size=60).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b"..")))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_file_name(limits: Limits, file_uri: FileUri, tmp_path: Path, name: bytes) -> None:
    path = os.path.join(bytes(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"x")
    assert read_file(file_uri(path).removeprefix("file://"), limits).data == b"x"


def test_symlink_is_followed(fetcher: Fetcher, file_uri: FileUri, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    assert fetcher.fetch(file_uri(tmp_path / "b")).data == b"x"


@pytest.mark.parametrize(
    "uri",
    ["file:///no/such/file", "file:///etc/passwd/x", "file:///" + "x" * 300, "file:///a%00b", "file://", "file://a/b"],
)
def test_what_is_not_there_is_not_found(uri: str, fetcher: Fetcher) -> None:
    failure = failure_of(fetcher, uri)
    assert (type(failure), failure.code) == (PermanentFailure, Code.NOT_FOUND)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1/a.jpg", "ftp://a/b", "/a/b.jpg", "data:image/png;base64,", "", "FILE:x"]
)
def test_other_schemes_are_refused(uri: str, fetcher: Fetcher) -> None:
    failure = failure_of(fetcher, uri)
    assert (type(failure), failure.code) == (PermanentFailure, Code.ACCESS_DENIED)


def test_what_would_block_is_refused_at_once(fetcher: Fetcher, file_uri: FileUri, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        paths = [tmp_path / name for name in ("pipe", "folder.jpg", "link", "socket")]
        for path in [*paths, Path("/dev/zero"), Path("/dev/tty")]:
            failure = failure_of(fetcher, file_uri(path))
            assert (type(failure), failure.code) == (PermanentFailure, Code.NOT_AN_IMAGE), path


def test_unreadable_file_is_denied(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, file_uri: FileUri) -> None:
    """By an injected error, as root may read everything."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "open", refuse)
    assert failure_of(fetcher, file_uri(Path(__file__))).code == Code.ACCESS_DENIED


def test_error_of_the_disk_is_transient(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, file_uri: FileUri) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", fail)
    failure = failure_of(fetcher, file_uri(Path(__file__)))
    assert (type(failure), failure.code) == (TransientFailure, Code.STORAGE_UNAVAILABLE)


def test_file_over_the_limit_is_refused_unread(limits: Limits, file_uri: FileUri, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    failure = failure_of(Fetcher(limits, StorageOptions()), file_uri(path))
    assert (type(failure), failure.code) == (PermanentFailure, Code.TOO_LARGE)
    assert failure.version.endswith(f":{1 << 40}")


@pytest.mark.parametrize("change", [lambda file: file.write(b"more"), lambda file: os.utime(file.fileno(), (1, 1))])
def test_file_that_changes_while_it_is_read_is_tried_again(
    change: Callable[[Any], Any], fetcher: Fetcher, file_uri: FileUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    fstat = os.fstat

    def fstat_then_change(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        with path.open("ab") as file:
            change(file)
        return status

    monkeypatch.setattr(os, "fstat", fstat_then_change)
    failure = failure_of(fetcher, file_uri(path))
    assert (type(failure), failure.code) == (TransientFailure, Code.STORAGE_UNAVAILABLE)


# S3

KEYS = [
    "a",
    "a b",
    "a+b",
    "100%",
    "%41",
    "a#b",
    "a?b=c",
    "a//b",
    "/a",
    "a/",
    "å",
    "a\u030a",
    "🖼️",
    "'\"",
    "a&b",
    "~a",
]


@pytest.fixture
def storage(s3: Any) -> StorageOptions:
    return StorageOptions(s3.endpoint)


@pytest.fixture
def bucket_fetcher(limits: Limits, storage: StorageOptions) -> Fetcher:
    return Fetcher(limits, storage)


def test_object_comes_with_its_etag(s3: Any, bucket_fetcher: Fetcher) -> None:
    uri = s3.put("a/b.jpg", b"some bytes")
    etag = s3.client.head_object(Bucket=s3.bucket, Key="a/b.jpg")["ETag"]
    assert bucket_fetcher.fetch(uri) == Fetched(b"some bytes", etag.strip('"'))


def test_every_key_is_read_as_it_is(s3: Any, bucket_fetcher: Fetcher) -> None:
    uris = [s3.put(key, key.encode()) for key in KEYS]
    assert [bucket_fetcher.fetch(uri).data.decode() for uri in uris] == KEYS


def test_missing_object_and_missing_bucket_are_not_found(s3: Any, bucket_fetcher: Fetcher) -> None:
    missing_key = failure_of(bucket_fetcher, f"s3://{s3.bucket}/no-such")
    missing_bucket = failure_of(bucket_fetcher, "s3://no-such-bucket-here/a")
    assert {missing_key.code, missing_bucket.code} == {Code.NOT_FOUND}
    assert "no such bucket: no-such-bucket-here" in missing_bucket.message
    assert {type(missing_key), type(missing_bucket)} == {PermanentFailure}


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://Not_A bucket!/k", "s3://b/\ud800"]
)
def test_uri_that_names_no_object_is_not_found(uri: str, bucket_fetcher: Fetcher) -> None:
    assert failure_of(bucket_fetcher, uri).code == Code.NOT_FOUND


def test_object_over_the_limit_is_refused_by_its_length(s3: Any, storage: StorageOptions, limits: Limits) -> None:
    failure = failure_of(Fetcher(replace(limits, max_bytes=9), storage), s3.put("a", b"0123456789"))
    assert (type(failure), failure.code) == (PermanentFailure, Code.TOO_LARGE)
    assert len(failure.version) == 32


def test_without_credentials_the_message_says_the_remedy(
    s3: Any, bucket_fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = s3.put("a", b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    failure = failure_of(bucket_fetcher, uri)
    assert (type(failure), failure.code) == (PermanentFailure, Code.ACCESS_DENIED)
    assert "AWS_ACCESS_KEY_ID" in failure.message


def test_public_bucket_is_read_without_credentials(s3: Any, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = s3.put("a", b"x")
    s3.client.put_object_acl(Bucket=s3.bucket, Key="a", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert Fetcher(limits, StorageOptions(s3.endpoint, s3_anonymous=True)).fetch(uri).data == b"x"


@pytest.mark.parametrize(
    ("code", "status", "kind", "ours"),
    [
        ("NoSuchKey", 404, PermanentFailure, Code.NOT_FOUND),
        ("404", 404, PermanentFailure, Code.NOT_FOUND),
        ("AccessDenied", 403, PermanentFailure, Code.ACCESS_DENIED),
        ("InvalidAccessKeyId", 403, PermanentFailure, Code.ACCESS_DENIED),
        ("SignatureDoesNotMatch", 403, PermanentFailure, Code.ACCESS_DENIED),
        ("ExpiredToken", 400, PermanentFailure, Code.ACCESS_DENIED),
        ("InvalidObjectState", 403, PermanentFailure, Code.ACCESS_DENIED),
        ("SlowDown", 503, TransientFailure, Code.THROTTLED),
        ("ServiceUnavailable", 503, TransientFailure, Code.THROTTLED),
        ("TooManyRequests", 429, TransientFailure, Code.THROTTLED),
        ("InternalError", 500, TransientFailure, Code.STORAGE_UNAVAILABLE),
        ("", 502, TransientFailure, Code.STORAGE_UNAVAILABLE),
        ("RequestTimeout", 400, TransientFailure, Code.TIMEOUT),
    ],
)
def test_answer_of_s3_has_one_meaning(code: str, status: int, kind: type[ImageFailure], ours: Code) -> None:
    failure = refusal(code, status, "photos")
    assert (type(failure), failure.code) == (kind, ours)
    assert "{" not in failure.message


# Servers that misbehave


class Server:
    """A raw socket that answers each request with the next of some bytes, and the last of them for ever."""

    def __init__(self, *answers: bytes | None) -> None:
        self.requests = 0
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._done = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._done.set()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if not self._answers:  # closed, but for the one that its last accept() let in
                return
            connection.recv(65536)  # a GET without a body comes in one piece
            answer = self._answers[min(self.requests, len(self._answers) - 1)]
            self.requests += 1
            if answer is None:  # nothing, until the test ends
                self._done.wait(30)
                return
            connection.sendall(answer)
            while answer.endswith(b"and so on"):
                connection.sendall(b"and so on" * 1000)
            for _ in range(1000 if answer.endswith(b"drop") else 0):
                connection.sendall(b"x")
                self._done.wait(0.03)


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", 'ETag: "v1"', *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def serving(*answers: bytes | None) -> Iterator[Server]:
    server = Server(*answers)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def quick(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> Limits:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # botocore's backoff
    return replace(limits, fetch_timeout_s=3.0, max_bytes=1 << 20)


SLOW_DOWN = reply("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>", "Content-Length: 36")
GOOD = reply("200 OK", b"picture", "Content-Length: 7")


def test_burst_of_503_is_outlived(quick: Limits) -> None:
    with serving(SLOW_DOWN, SLOW_DOWN, GOOD) as server:
        assert Fetcher(quick, StorageOptions(server.endpoint)).fetch("s3://b/k") == Fetched(b"picture", "v1")
        assert server.requests == 3


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (SLOW_DOWN, TransientFailure, Code.THROTTLED),
        (reply("500 Oh", b"", "Content-Length: 0"), TransientFailure, Code.STORAGE_UNAVAILABLE),
        (b"", TransientFailure, Code.STORAGE_UNAVAILABLE),  # closed without an answer
        (b"what is HTTP?\r\n\r\n", TransientFailure, Code.STORAGE_UNAVAILABLE),
        (reply("200 OK", b"half", "Content-Length: 100"), TransientFailure, Code.STORAGE_UNAVAILABLE),
        (reply("200 OK", b"", "Content-Length: 5000000"), PermanentFailure, Code.TOO_LARGE),
        (reply("200 OK", b"and so on"), PermanentFailure, Code.TOO_LARGE),  # an endless body of unknown length
        (reply("403 Forbidden", b"", "Content-Length: 0"), PermanentFailure, Code.ACCESS_DENIED),
        (reply("404 Not Found", b"", "Content-Length: 0"), PermanentFailure, Code.NOT_FOUND),
    ],
)
def test_bad_answer_gets_its_code_and_shows_no_secret(
    answer: bytes, kind: type[ImageFailure], code: Code, quick: Limits
) -> None:
    with serving(answer) as server:
        failure = failure_of(Fetcher(quick, StorageOptions(server.endpoint)), "s3://b/k")
    assert (type(failure), failure.code) == (kind, code)
    assert not re.search("planted", str(failure), re.IGNORECASE)


def test_silent_server_is_a_transient_timeout(quick: Limits) -> None:
    with serving(None) as server:
        failure = failure_of(Fetcher(replace(quick, fetch_timeout_s=0.9), StorageOptions(server.endpoint)), "s3://b/k")
        assert (type(failure), failure.code) == (TransientFailure, Code.TIMEOUT)


def test_server_that_drips_is_left_at_the_deadline(quick: Limits) -> None:
    """And not at the end of a block: that would have been too large by then."""
    narrow = replace(quick, fetch_timeout_s=0.9, max_bytes=200)
    with serving(reply("200 OK", b"drop")) as server:
        failure = failure_of(Fetcher(narrow, StorageOptions(server.endpoint)), "s3://b/k")
        assert (type(failure), failure.code) == (TransientFailure, Code.TIMEOUT)


def test_closed_port_is_storage_unavailable(quick: Limits) -> None:
    with serving() as server:
        endpoint = server.endpoint
    failure = failure_of(Fetcher(quick, StorageOptions(endpoint)), "s3://b/k")
    assert (type(failure), failure.code) == (TransientFailure, Code.STORAGE_UNAVAILABLE)


def test_endpoint_that_is_no_url_is_told_without_its_password(quick: Limits) -> None:
    failure = failure_of(Fetcher(quick, StorageOptions("minio:planted@host")), "s3://b/k")
    assert "KOSMOGRAPH_S3_ENDPOINT_URL" in failure.message
    assert "planted" not in failure.message
