"""An archive in S3 behind a proxy that throws faults, and runs over it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schemas.database import Database
from tests.faults.invariants import assert_sound
from tests.faults.s3_proxy import S3Proxy, Script
from tests.pipeline.conftest import Kosmograph, Run, jpeg

QUICK_RETRIES = {
    "KOSMOGRAPH_CHUNK_SIZE": "8",
    "KOSMOGRAPH_RETRY_BASE_S": "0.1",
    "KOSMOGRAPH_DISPATCH_INTERVAL_S": "0.1",
}


@dataclass
class Archive:
    """Objects in a bucket, and `annotate` with the null model over them."""

    s3: Any
    proxy: S3Proxy
    faults: Script
    kosmograph: Kosmograph
    uris: list[str] = field(default_factory=list)

    def fill(self, count: int) -> None:
        """So many small pictures, each with bytes of its own."""
        self.uris = [self.s3.put(f"photos/{number:04}.jpg", jpeg(number)) for number in range(count)]

    def key(self, number: int) -> str:
        return f"photos/{number:04}.jpg"

    @property
    def source(self) -> str:
        return f"s3://{self.s3.bucket}/photos/"

    def annotate(self, *sources: str, **variables: str) -> Run:
        return self.kosmograph.annotate(*(sources or (self.source,)), **QUICK_RETRIES | variables)

    def assert_sound(self, *codes: str) -> None:
        database = Database(f"sqlite:///{self.kosmograph.folder / 'kosmograph.db'}")
        assert_sound(database, self.uris, codes=codes)
        database.close()

    def manifest(self, folder: Path) -> str:
        """The same archive as a list, which names no versions and asks S3 nothing."""
        path = folder / "list.txt"
        path.write_text("\n".join(self.uris))
        return f"@{path}"

    def failed(self) -> dict[str, str]:
        """The codes of the images that failed, by URI."""
        return {row["uri"]: row["code"] for row in self.kosmograph.sql("SELECT uri, code FROM failures")}


def the_line_of(run: Run) -> str:
    """The one line in which a run says why it ended; beside it there is only the progress."""
    (line,) = [line for line in run.err.splitlines() if line.startswith("kosmograph: ")]
    assert run.err.strip().endswith(line), run.err
    assert "Traceback" not in run.err
    return line


@pytest.fixture
def archive(s3: Any, kosmograph: Kosmograph, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """An empty one, whose proxy throws no faults yet; listings come in pages of ten."""
    faults = Script()
    with S3Proxy(s3.endpoint, faults, page_size=10) as proxy:
        monkeypatch.setenv("KOSMOGRAPH_S3_ENDPOINT_URL", proxy.url)
        yield Archive(s3, proxy, faults, kosmograph)
