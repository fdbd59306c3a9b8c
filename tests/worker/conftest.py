"""Pictures, limits and loaders for the worker's tests."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
from PIL import Image

from schemas.settings import Settings
from schemas.storage import StorageOptions
from worker.images import Limits
from worker.loader import Loader


@pytest.fixture(scope="session")
def limits() -> Limits:
    return Limits.from_settings(Settings())


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Image.Image]:
    """A smooth, asymmetric picture, unlike under every turn: `photograph(width, height, mode)`."""

    def make(width: int = 61, height: int = 37, mode: str = "RGB") -> Image.Image:
        random = np.random.default_rng(width * 1000 + height)
        small = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)

    return make


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """The bytes of a picture in a format of Pillow's."""

    def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def file_uri() -> Callable[[Any], str]:
    """The URI of a path, as bytes or otherwise."""

    def uri(path: Any) -> str:
        name = path if isinstance(path, bytes) else bytes(path)
        return "file://" + quote_from_bytes(name)

    return uri


@pytest.fixture
def new_loader(limits: Limits) -> Iterator[Callable[..., Loader]]:
    """Loaders with some limits changed, closed at the end: `new_loader(processes=1, max_bytes=…)`."""
    loaders: list[Loader] = []

    def make(processes: int = 1, storage: StorageOptions = StorageOptions(), **changed: Any) -> Loader:  # noqa: B008
        loaders.append(Loader(replace(limits, **changed), processes, storage))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()
