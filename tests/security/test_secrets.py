"""Secrets, planted wherever a person puts one, on every path that fails: they are in no output, log or row."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.conftest import Kosmograph
from tests.security.test_local_files import everything

WORD = "planted-77c3ab"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED", "AWS_SECRET_ACCESS_KEY": WORD, "AWS_SESSION_TOKEN": WORD}
DATABASES = [
    f"postgresql://user:{WORD}@127.0.0.1:1/kosmograph",
    f"postgresql://127.0.0.1:1/kosmograph?user=u&password={WORD}",
    f"postgresql://user:{WORD}@no-such-host.test/kosmograph",
    f"postgresql://user:{WORD}@127.0.0.1:port/kosmograph",
    f"postgresql:/user:{WORD}@127.0.0.1/kosmograph",
    f"mysql://user:{WORD}@127.0.0.1/kosmograph",
    f"user:{WORD}@127.0.0.1",
    f"postgresql://user:{WORD}@127.0.0.1:1/k?no_such_option={WORD}",
    f"postgresql://user:{WORD}@127.0.0.1:1/k?sslpassword={WORD}&application_name={WORD}",
    WORD,
]
BROKERS = [
    f"redis://user:{WORD}@127.0.0.1:port/0",
    f"redis://user:{WORD}@127.0.0.1:6379/base",
    f"redis://127.0.0.1:6379/0?password={WORD}",
    f"amqp://user:{WORD}@127.0.0.1//",
    f"user:{WORD}@127.0.0.1",
    f"redis://:{WORD}@127.0.0.1:1/{WORD}",
    WORD,
]
BROKERS_AWAY = [
    f"redis://:{WORD}@no-such-host.test:6379/0",
    f"redis://:{WORD}@127.0.0.1:1/0",
    f"rediss://:{WORD}@127.0.0.1:1/0?ssl_ca_certs=/no/such/file",
]
SOURCES = [
    f"s3://AKIAPLANTED:{WORD}@bucket/photos/",
    f"https://user:{WORD}@example.com/a.jpg",
    f"https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Credential=AKIAPLANTED&X-Amz-Signature={WORD}",
    f"ftp://user:{WORD}@example.com/a.jpg",
    f"file://user:{WORD}@example.com/a.jpg",
]


def clean(*said: object) -> bool:
    text = " ".join(map(str, said)).lower()
    return "planted" not in text


@pytest.mark.parametrize("db", DATABASES)
def test_database_url_tells_nothing(
    kosmograph: Kosmograph, photos: Path, picture: Callable[..., bytes], db: str
) -> None:
    (photos / "a.jpg").write_bytes(picture(1))
    submit = ("submit", str(photos), "--model", "null")
    for command in (("status",), ("sql", "SELECT 1"), ("pause", "job"), submit, ("doctor",)):
        run = kosmograph.here(*command, KOSMOGRAPH_DB=db)
        assert run.code in (1, 2), run.out
        assert clean(run.out, run.err), run.out + run.err
        assert command == ("doctor",) or len(run.err.splitlines()) == 1, run.err


def test_process_tells_nothing_of_its_database(kosmograph: Kosmograph, photos: Path) -> None:
    for command in (("status",), ("annotate", str(photos), "--model", "null"), ("doctor",)):
        run = kosmograph(*command, KOSMOGRAPH_DB=DATABASES[0])
        assert run.code == 1
        assert clean(run.out, run.err), run.out + run.err


@pytest.mark.parametrize("broker", BROKERS)
def test_broker_url_is_refused_and_tells_nothing(kosmograph: Kosmograph, broker: str) -> None:
    for command, code in ((("doctor",), 1), (("dispatch",), 2), (("worker", "--model", "null"), 2)):
        run = kosmograph.here(*command, KOSMOGRAPH_BROKER=broker)
        assert (run.code, clean(run.out, run.err)) == (code, True), run.out + run.err
        assert "Traceback" not in run.err


@pytest.mark.parametrize("broker", [BROKERS[0], *BROKERS_AWAY])
def test_broker_url_tells_nothing(kosmograph: Kosmograph, broker: str) -> None:
    run = kosmograph("doctor", KOSMOGRAPH_BROKER=broker)
    assert (run.code, clean(run.out, run.err)) == (1, True), run.out + run.err
    for command in (("dispatch",), ("worker", "--model", "null")):
        service = kosmograph.start(*command, KOSMOGRAPH_BROKER=broker, KOSMOGRAPH_LOG_LEVEL="debug")
        line = service.stderr.readline()  # either it ends with it, or waits for the broker
        service.send_signal(signal.SIGTERM)
        out, err = service.communicate(timeout=60)
        assert line
        assert "Traceback" not in line + err
        assert clean(out, line, err), line + err


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("options", [(), ("--allow-http",)])
def test_source_is_refused_without_its_secret(kosmograph: Kosmograph, source: str, options: tuple[str, ...]) -> None:
    for command in ("annotate", "submit"):
        run = kosmograph.here(command, source, "--model", "null", *options)
        assert (run.code, len(run.err.splitlines())) == (2, 1), run.err
        assert clean(run.out, run.err), run.err


def test_process_refuses_a_source_without_its_secret(kosmograph: Kosmograph) -> None:
    run = kosmograph.annotate(SOURCES[0])
    assert (run.code, len(run.err.splitlines())) == (2, 1), run.err
    assert clean(run.out, run.err), run.err


def test_secrets_of_a_manifest_are_stored_nowhere(
    kosmograph: Kosmograph, photos: Path, picture: Callable[..., bytes]
) -> None:
    """Each such row fails under a name without them; also in what standard input and a broken S3 leave behind."""
    (photos / "a.jpg").write_bytes(picture(1))
    (photos / "list.txt").write_text("\n".join(["a.jpg", *SOURCES, "s3://bucket/a.jpg"]))
    broken = {"KOSMOGRAPH_S3_ENDPOINT_URL": f"http://user:{WORD}@127.0.0.1:1", "KOSMOGRAPH_MAX_TRIES": "1"}
    run = kosmograph.annotate(f"@{photos}/list.txt", "--allow-http", **KEYS, **broken)
    assert run.code == 3, run.err
    failures = kosmograph.sql("SELECT uri, code, message FROM failures")
    assert len(failures) == len(SOURCES) + 1
    assert {row["code"] for row in failures} <= {"access_denied", "not_found", "storage_unavailable"}
    assert "https://***@example.com/a.jpg" in {row["uri"] for row in failures}
    shown = [kosmograph(*words) for words in (("status",), ("failures", kosmograph.value("SELECT job FROM progress")))]
    assert clean(run.out, run.err, json.dumps(failures), everything(kosmograph.folder), shown)


def test_s3_tells_neither_keys_nor_endpoint_password(kosmograph: Kosmograph) -> None:
    for endpoint in (f"http://user:{WORD}@127.0.0.1:1", f"user:{WORD}@minio", f"http://user:{WORD}@[x"):
        run = kosmograph.annotate("s3://bucket/photos/", KOSMOGRAPH_S3_ENDPOINT_URL=endpoint, **KEYS)
        assert (run.code in (1, 2), len(run.err.splitlines())) == (True, 1), run.err
        assert clean(run.out, run.err), run.err


def test_wrong_value_of_a_setting_is_not_repeated(kosmograph: Kosmograph) -> None:
    run = kosmograph.here("doctor", KOSMOGRAPH_WORKERS=WORD)
    assert (run.code, clean(run.err)) == (2, True)
