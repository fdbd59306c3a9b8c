"""`annotate s3://bucket/prefix` against a real HTTP endpoint."""

import pytest

KEYS = [
    "photos/plain.jpg", "photos/with space.jpg", "photos/plus+plus.jpg", "photos/per%20cent.jpg", "photos/ha#sh?.jpg",
    "photos/quote'\".jpg", "photos/\u00e9.jpg", "photos/e\u0301.jpg", "photos/\U0001f600.jpg", "photos//double.jpg",
]  # fmt: skip


def test_bucket_becomes_captions(kosmograph, s3, picture) -> None:
    """Each key, however odd, ends as one caption under the URI that it has."""
    uris = {s3.put(key, picture(number)) for number, key in enumerate(KEYS)}
    s3.put("photos/", b"")
    s3.put("photos/notes.txt", b"not listed")
    s3.put("elsewhere/other.jpg", picture(500))
    run = kosmograph.annotate(f"s3://{s3.bucket}/photos/")
    assert run.code == 0, run.err
    assert {row["uri"] for row in kosmograph.sql("SELECT uri FROM captions")} == uris
    version = kosmograph.value("SELECT version FROM images WHERE uri LIKE '%/plain.jpg'")
    assert version == s3.client.head_object(Bucket=s3.bucket, Key="photos/plain.jpg")["ETag"].strip('"')


def test_second_run_reads_nothing(kosmograph, s3, picture) -> None:
    """The listing's ETags settle it: no worker is started."""
    for number in range(5):
        s3.put(f"{number}.jpg", picture(number))
    kosmograph.annotate(f"s3://{s3.bucket}/")
    run = kosmograph.annotate(f"s3://{s3.bucket}/", KOSMOGRAPH_DEVICE="none, so that a worker would fail")
    assert run.code == 0, run.err
    assert "5 images, 5 annotated" in run.out


def test_object_that_is_gone_fails_as_not_found(kosmograph, s3, picture, tmp_path) -> None:
    there, gone = s3.put("there.jpg", picture(1)), f"s3://{s3.bucket}/gone.jpg"
    manifest = tmp_path / "list.txt"
    manifest.write_text(f"{there}\n{gone}\n")
    run = kosmograph.annotate(f"@{manifest}")
    assert run.code == 3
    failures = kosmograph.sql("SELECT uri, code FROM failures")
    assert [(row["uri"], row["code"]) for row in failures] == [(gone, "not_found")]


def test_wrong_bucket_is_one_line(kosmograph, s3) -> None:
    run = kosmograph.annotate("s3://no-such-bucket-here/photos/")
    assert run.code == 1
    assert "no-such-bucket-here" in run.err
    assert len(run.err.strip().splitlines()) == 1


def test_missing_credentials_are_one_line_with_the_remedy(
    kosmograph, s3, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    nowhere = {"AWS_CONFIG_FILE": str(tmp_path / "no"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no")}
    run = kosmograph.annotate(f"s3://{s3.bucket}/", AWS_EC2_METADATA_DISABLED="true", **nowhere)
    assert run.code == 1
    assert "credentials" in run.err
    assert len(run.err.strip().splitlines()) == 1


def test_refused_bucket_is_one_line(kosmograph, refusing_s3: str, s3) -> None:
    run = kosmograph.annotate("s3://private/photos/", KOSMOGRAPH_S3_ENDPOINT_URL=refusing_s3)
    assert run.code == 1
    assert "private" in run.err
    assert "denied" in run.err.lower()
    assert len(run.err.strip().splitlines()) == 1


@pytest.fixture
def refusing_s3():
    """An S3 that answers every request with 403."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    body = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
