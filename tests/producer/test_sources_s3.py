"""S3 prefixes over the real protocol: any key, pages, restarts, and one line for each thing that can be wrong."""

import socket
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from producer.sources import Filters, Item, Listed, Skip, StorageOptions
from producer.sources.s3 import S3Source
from schemas.errors import KosmographError, SetupError, SourceError, UsageError
from schemas.storage import s3_client, without_secrets
from schemas.uris import split_s3

KEYS = [
    "p/a b.jpg",
    "p/a+b.jpg",
    "p/100%.jpg",
    "p/a%20b.jpg",
    "p/#1.jpg",
    "p/what?x=1&y=2.jpg",
    "p/'single' \"double\" <tag>.jpg",
    "p/" + unicodedata.normalize("NFC", "café.jpg"),
    "p/" + unicodedata.normalize("NFD", "café.jpg"),
    "p/👩‍🚀.jpg",
    "p//twice.jpg",
    "p/x/../up.jpg",
    "p/./here.jpg",
    "p/" + "n" * 251 + ".jpg",
    "p/" + "d/" * 400 + "deep.jpg",
    "p/with-body.jpg/",
]

Answering = Callable[[int, bytes], Any]


@pytest.fixture
def in_s3(s3: Any) -> Callable[..., S3Source]:
    """A source over the test's bucket, with pages so small that there are many."""

    def source(prefix: str = "", filters: Filters | None = None, page_size: int = 7) -> S3Source:
        client = s3_client(StorageOptions(s3.endpoint))
        return S3Source(client, s3.bucket, prefix, filters or Filters(), page_size)

    return source


@pytest.fixture
def answering() -> Callable[[int, bytes], Any]:
    """A server that gives one answer to everything, and keeps the headers of what it was asked."""

    @contextmanager
    def serve(status: int, body: bytes) -> Iterator[tuple[str, list[Any]]]:
        asked: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}", asked
            server.shutdown()

    return serve


def refusal(code: str) -> bytes:
    """As S3 words it: with the key id that was sent."""
    said = f"<Code>{code}</Code><Message>no</Message><AWSAccessKeyId>planted-secret</AWSAccessKeyId>"
    return f"<Error>{said}</Error>".encode()


def line(error: KosmographError) -> str:
    """The error as people see it, once it is one line without a secret."""
    text = str(error)
    assert text.isprintable()
    assert "secret" not in text
    assert ";" in text  # what is wrong; what to do
    return text


def test_every_hostile_key_is_listed_as_it_is_and_can_be_read(s3: Any, in_s3: Any, restarts_anywhere: Any) -> None:
    for key in KEYS:
        s3.put(key, key.encode())
    source = in_s3("p/", page_size=3)
    items = [found.item for found in source.list()]
    assert [item.uri for item in items] == [f"s3://{s3.bucket}/{key}" for key in sorted(KEYS, key=str.encode)]
    for item in items:
        bucket, key = split_s3(item.uri)
        answer = s3.client.get_object(Bucket=bucket, Key=key, IfMatch=item.version)
        assert answer["Body"].read() == key.encode()
        assert (answer["ETag"], answer["ContentLength"]) == (f'"{item.version}"', item.size)
    restarts_anywhere(source)


def test_a_hostile_key_can_be_the_prefix_itself(s3: Any, open_source: Any, uris: Any) -> None:
    storage = StorageOptions(s3.endpoint)
    for key in KEYS[4:12]:
        uri = s3.put(key, b"x")
        source = open_source(uri, storage=storage)
        assert source.spec == uri
        assert uris(source) == [uri]


def test_pages_neither_lose_nor_double_a_key(s3: Any, in_s3: Any, uris: Any, restarts_anywhere: Any) -> None:
    wanted = [s3.put(f"{number:03}.jpg", b"x") for number in range(22)]
    assert uris(in_s3(page_size=1000)) == uris(in_s3(page_size=4)) == uris(in_s3(page_size=1)) == wanted
    restarts_anywhere(in_s3(page_size=4))


def test_a_page_is_asked_for_only_when_its_turn_comes(s3: Any, in_s3: Any) -> None:
    for number in range(10):
        s3.put(f"{number}.jpg", b"x")
    listing = in_s3(page_size=2).list()
    first = next(listing)
    s3.client.delete_object(Bucket=s3.bucket, Key="5.jpg")
    assert [found.item.uri[-5:] for found in (first, *listing)] == [f"{n}.jpg" for n in range(10) if n != 5]


def test_what_is_no_image_is_passed_over_and_counted(s3: Any, in_s3: Any, uris: Any, skips: Any) -> None:
    s3.put("p/", b"")
    s3.put("p/a/", b"")
    s3.put("p/._a.jpg", b"x")
    s3.put("p/a.json", b"x")
    s3.put("p/a.JPG", b"")
    for storage_class in ("GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "STANDARD_IA"):
        s3.client.put_object(Bucket=s3.bucket, Key=f"p/{storage_class}.jpg", Body=b"x", StorageClass=storage_class)
    source = in_s3("p/")
    assert [uri.rpartition("/")[2] for uri in uris(source)] == ["GLACIER_IR.jpg", "STANDARD_IA.jpg", "a.JPG"]
    assert sorted(skips(source)) == ["ARCHIVED"] * 2 + ["FOLDER_KEY"] * 2 + ["HIDDEN", "NOT_AN_IMAGE"]
    assert len(uris(in_s3("p/", Filters(all_files=True)))) == 5
    assert uris(in_s3("p/a.json")) == [f"s3://{s3.bucket}/p/a.json"]


def test_patterns_are_relative_to_the_folder_of_the_prefix(s3: Any, in_s3: Any, uris: Any) -> None:
    for key in ("p/x/a.jpg", "p/x/y/b.jpg", "p/xx.jpg"):
        s3.put(key, b"x")
    assert len(uris(in_s3("p/x"))) == 3
    assert uris(in_s3("p/x", Filters(include=("x/*",)))) == [f"s3://{s3.bucket}/p/x/a.jpg"]
    assert uris(in_s3("", Filters(exclude=("p/x/**",)))) == [f"s3://{s3.bucket}/p/xx.jpg"]


def test_an_empty_bucket_is_empty_and_an_empty_prefix_is_an_error(s3: Any, open_source: Any) -> None:
    storage = StorageOptions(s3.endpoint)
    assert list(open_source(f"s3://{s3.bucket}", storage=storage).list()) == []
    with pytest.raises(SourceError) as caught:
        open_source(f"s3://{s3.bucket}/typo/", storage=storage)
    assert "typo/: no key begins so; check the prefix" in line(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("s3://there-is-no-such-bucket/p", "no such bucket at http://127.0.0.1"),
        ("s3://No Bucket/p", "no bucket can have this name"),
        ("s3://", "not an s3://bucket/key URI"),
    ],
)
def test_a_wrong_bucket_is_one_line(spec: str, words: str, s3: Any, open_source: Any) -> None:
    with pytest.raises(KosmographError) as caught:
        open_source(spec, storage=StorageOptions(s3.endpoint))
    assert words in line(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, refusal("AccessDenied"), "access denied"),
        (403, b"", "access denied"),
        (403, refusal("InvalidAccessKeyId"), "check AWS_ACCESS_KEY_ID"),
        (403, refusal("SignatureDoesNotMatch"), "check AWS_SECRET_ACCESS_KEY"),
        (400, refusal("ExpiredToken"), "renew them"),
        (400, refusal("InvalidBucketName"), "no bucket can have this name"),
        (403, refusal("RequestTimeTooSkewed"), "clock"),
        (400, refusal("Odd\x1b"), "answered"),
        (404, b"<html>not here</html>", "answered 404"),
        (200, b"<html>hello</p>", "answered 500"),
        (200, b"<html>hello</html>", "the answer is not S3's"),
        (200, b"", "the answer is not S3's"),
    ],
)
def test_what_a_server_refuses_is_one_line(
    status: int,
    body: bytes,
    words: str,
    s3: Any,
    answering: Answering,
    open_source: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    with answering(status, body) as (endpoint, _), pytest.raises(SourceError) as caught:
        open_source("s3://bucket/p", storage=StorageOptions(endpoint))
    assert words in line(caught.value)


def test_no_answer_is_one_line(s3: Any, open_source: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError) as caught:
        open_source("s3://bucket/p", storage=StorageOptions(f"http://127.0.0.1:{port}"))
    assert f"no answer from http://127.0.0.1:{port}; check KOSMOGRAPH_S3_ENDPOINT_URL" in line(caught.value)


def test_no_credentials_is_one_line(s3: Any, open_source: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_credentials(monkeypatch, tmp_path)
    with pytest.raises(SourceError) as caught:
        open_source(f"s3://{s3.bucket}", storage=StorageOptions(s3.endpoint))
    assert "no usable credentials" in line(caught.value)
    assert "KOSMOGRAPH_S3_ANONYMOUS=true" in str(caught.value)


def test_an_unknown_profile_is_one_line(
    s3: Any, open_source: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    with pytest.raises(SetupError) as caught:
        open_source("s3://bucket")
    assert "nightly" in line(caught.value)


def test_anonymous_requests_carry_no_signature_and_need_no_credentials(
    answering: Answering, open_source: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_credentials(monkeypatch, tmp_path)
    empty = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with answering(200, empty) as (endpoint, asked):
        source = open_source("s3://bucket", storage=StorageOptions(endpoint, s3_anonymous=True))
        assert list(source.list()) == []
    assert len(asked) == 2
    assert all("Authorization" not in headers for headers in asked)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "nonsense", "user:planted-secret@host", "http://[::1"])
def test_a_malformed_endpoint_is_one_line(endpoint: str, s3: Any, open_source: Any) -> None:
    with pytest.raises(UsageError) as caught:
        open_source("s3://bucket/p", storage=StorageOptions(endpoint))
    assert "is no S3 endpoint" in line(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host:9000/path?sig=secret", "http://host:9000"),
        ("https://user:se/cr?et@host", "https://host"),
        ("host:9000", "host:9000"),
    ],
)
def test_an_endpoint_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_a_key_of_control_characters_is_an_item_unless_no_database_can_hold_it(
    s3: Any, answering: Answering, open_source: Any
) -> None:
    keys = ("a%00.jpg", "b%0Ac%1B.jpg")  # as S3 encodes them in its answer; the test server has no such keys
    contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag></Contents>" for key in keys)
    listing = f"<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{contents}"
    body = f"<ListBucketResult>{listing}</ListBucketResult>".encode()
    with answering(200, body) as (endpoint, _):
        found: list[Listed] = list(open_source("s3://bucket", storage=StorageOptions(endpoint)).list())
    assert [one.cursor for one in found] == list(keys)
    assert found[0].skip is Skip.UNUSABLE
    assert found[1].item == Item("s3://bucket/b\nc\x1b.jpg", "e", 1)


def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
