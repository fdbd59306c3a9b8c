"""Small pictures, and a night on each database."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.database import Database
from schemas.uris import file_uri
from tests.faults.archive import archive as archive
from tests.faults.night import Night
from tests.pipeline.conftest import kosmograph as kosmograph
from tests.pipeline.conftest import many as many
from tests.pipeline.conftest import photos as photos

MOST_IMAGES = 420


def picture(seed: int) -> bytes:
    """A small JPEG with bytes of its own; number 0 is white, and a poison to workers that are told so."""
    noise = np.random.default_rng(seed).integers(0, 200, (6, 6, 3), dtype=np.uint8)
    pixels = noise if seed else np.full_like(noise, 255)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The URIs of many small pictures, the first one white."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(MOST_IMAGES):
        (folder / f"{number:04}.jpg").write_bytes(picture(number))
    return [file_uri(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def night(tmp_path: Path, database: Database, own_broker: Any, pictures: Sequence[str]) -> Iterator[Night]:
    """On SQLite, and again on PostgreSQL, unless the test is marked with one of them."""
    made = Night(tmp_path, database, own_broker, pictures)
    yield made
    made.end()
