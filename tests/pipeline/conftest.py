"""Whole runs in real processes, as a person starts them."""

import fcntl
import io
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image

from kosmograph.__main__ import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str


def here(folder: Path, *arguments: str, **variables: str) -> Run:
    """A command in this process, for one that only looks or is refused; this process logs as before."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["kosmograph", *arguments])
        patch.setattr(sys, "stdin", io.StringIO())
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(logging, "basicConfig", lambda **_: None)
        patch.setattr(structlog, "configure", lambda **_: None)
        patch.setattr("schemas.logs.QUIET", ())
        for name, value in variables.items():
            patch.setenv(name, value)
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except Exception:
            traceback.print_exc()
            code = 1
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return Run(code, *texts)


class Kosmograph:
    """The command line in a folder of its own, where the database is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, input: str | None = None, **variables: str) -> Run:
        """Run a command to its end, with nothing on standard input unless it is given."""
        done = self.start(*arguments, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, **variables)
        out, err = done.communicate(input, timeout=240)
        return Run(done.returncode, out, err)

    def here(self, *arguments: str, **variables: str) -> Run:
        """The same in this process, for a command that only looks or is refused."""
        return here(self.folder, *arguments, **variables)

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL, **variables: str) -> "subprocess.Popen[str]":
        """Start a command, in a process group of its own."""
        command = [sys.executable, "-P", "-m", "kosmograph", *arguments]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | variables,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def annotate(self, *arguments: str, input: str | None = None, **variables: str) -> Run:
        """`annotate` with the null model, unless the arguments name another."""
        model = () if "--model" in arguments else ("--model", "null")
        return self("annotate", *arguments, *model, input=input, **variables)

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Rows of the SQLite database in the folder, without a process for them."""
        with closing(sqlite3.connect(f"file:{self.folder / 'kosmograph.db'}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    def value(self, query: str) -> Any:
        """The one value that a query answers."""
        return next(iter(self.sql(query)[0].values()))

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.fixture
def kosmograph(tmp_path: Path) -> Iterator[Kosmograph]:
    folder = tmp_path / "work"
    folder.mkdir()
    line = Kosmograph(folder)
    yield line
    line.end()


@pytest.fixture(scope="module")
def new_kosmograph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Kosmograph]]:
    """Makes a command line in a folder of its own, for runs that several tests look at."""
    lines: list[Kosmograph] = []

    def make() -> Kosmograph:
        lines.append(Kosmograph(tmp_path_factory.mktemp("work")))
        return lines[-1]

    yield make
    for line in lines:
        line.end()


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Kosmograph], None]], Kosmograph]:
    """A command line whose folder is filled by the first of all processes that run tests; the others wait for it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def take(name: str, fill: Callable[[Kosmograph], None]) -> Kosmograph:
        folder, filled = shared / name, shared / f"{name}.filled"
        folder.mkdir(exist_ok=True)
        line = Kosmograph(folder)
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                fill(line)
                filled.touch()
        return line

    return take


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def jpeg(seed: int, size: tuple[int, int] = (96, 96)) -> bytes:
    """A small picture with bytes of its own."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return jpeg


@pytest.fixture
def many(photos: Path) -> Callable[[int], Path]:
    """A folder with so many small pictures, all different; called again, with more of them."""

    def fill(count: int) -> Path:
        for number in range(count):
            path = photos / f"{number:05}.jpg"
            if not path.exists():
                path.write_bytes(jpeg(number))
        return photos

    return fill
