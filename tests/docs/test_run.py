"""Blocks that can run on a laptop do, and print what the pages show."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from catalog.reader import open_reader
from schemas.database import Database
from tests.docs.pages import NAMES, ROOT, Block, blocks
from tests.pipeline.conftest import Kosmograph, Run

ALONE = ("annotate", "submit", "dispatch", "worker")
"""Commands that get a process of their own."""
HOW = {
    "docs/how-to/folders.md": "null",
    "docs/how-to/s3.md": "s3",
    "docs/how-to/postgresql.md": "services",
}
"""What a page's blocks need that is not the demo's database."""


def of(how: str) -> list[Block]:
    """The blocks that run so, page by page."""
    return [block for name in NAMES if HOW.get(name, "demo") == how for block in blocks(name)]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Kosmograph]:
    """The command line in a folder with what the pages speak of: the drawings, and a list of some of them."""
    shutil.copytree(ROOT / "examples/images", tmp_path / "examples/images")
    shutil.copy(ROOT / "examples/drawings.json", tmp_path / "examples")
    (tmp_path / "photos").mkdir()
    for name in ("cover.jpg", "note.jpg", "postcard.jpg"):
        shutil.copy(ROOT / "examples/images" / name, tmp_path / "photos")
    rows = ["uri,what,where", 'photos/cover.jpg,a red ring,"0.1,0.1,0.5,0.5"', 'photos/note.jpg,a ring,"[0, 0, 9, 9]"']
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "things.txt").write_text("a red ring\na square\n")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/kosmograph"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m kosmograph "$@"\n')
    command.chmod(0o755)
    made = Kosmograph(tmp_path)
    yield made
    made.end()


def run(block: Block, line: Kosmograph, **variables: str) -> str:
    """What a shell block prints: each line that is one command of ours in this process, if it may, else by bash."""
    everywhere = {"KOSMOGRAPH_DEVICE": "cpu", **variables}
    printed = []
    for text in block.text.replace("\\\n", " ").strip().splitlines():
        words = shlex.split(text, comments=True)
        if words[:1] == ["kosmograph"] and not re.search(r"[|<>;&$]", re.sub(r'"[^"$]*"', "", text)):
            start: Callable[..., Run] = line if words[1] in ALONE else line.here
            done = start(*words[1:], **everywhere)
        else:
            path = f"{line.folder / 'bin'}:{os.environ['PATH']}"
            shell = subprocess.run(
                ["bash", "-ec", text],
                cwd=line.folder,
                env=os.environ | everywhere | {"PATH": path},
                capture_output=True,
                text=True,
            )
            done = Run(shell.returncode, shell.stdout, shell.stderr)
        assert done.code == 0, f"{block.place}: {text}\n{done.err}{done.out}"
        printed.append(done.out)
    return "".join(printed)


def check(block: Block, printed: str) -> None:
    """Line by line and in order; … stands for anything, and seconds for any."""
    lines = iter(_plain(printed))
    for shown in _plain(block.shown):
        pattern = re.escape(shown).replace("…", ".*")
        if shown != "…":
            assert any(re.fullmatch(pattern, one) for one in lines), f"{block.place} shows, and there is not: {shown}"


def _plain(text: str) -> list[str]:
    """Lines without their rulers, with single blanks between words."""
    lines = (" ".join(line.split()) for line in re.sub(r"in \d+ s\b", "in … s", text).splitlines())
    return [line for line in lines if line and not line.startswith("──")]


def execute(block: Block, folder: Path) -> None:
    """A block of Python, in that folder."""
    with contextlib.chdir(folder), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exec(compile(block.text, block.place, "exec"), {})


def test_what_the_demo_model_can_show(line: Kosmograph, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick start first, which makes the database that the other pages ask."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", line.folder / "cache")  # the environment is read once
    every = sorted(of("demo"), key=lambda block: block.page != "docs/index.md")
    for block in every:
        if block.language in ("", "sh") and block.runs:
            printed = run(block, line)
            if block.shown:
                check(block, printed)
        elif block.language == "python" and block.runs:
            execute(block, line.folder)
    (shown,) = [block for block in every if block.above == "output of make demo"]
    check(Block(shown.page, shown.line, "", "", "", shown.text), _make_demo(line))
    _ask([block.text for block in every if block.language == "sql" and "CREATE" not in block.text], line.folder)


def _make_demo(line: Kosmograph) -> str:
    """What the recipe of `make demo` prints, on the database that is there."""
    recipe = re.search(r"^demo: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe
    printed = []
    for text in re.findall(r"\$\(BIN\)/kosmograph (.*)", recipe[1]):
        done = line.here(*shlex.split(text.replace("$(DEMO_DB)", "").replace("$(DEMO)/", "")))
        printed.append(done.out)
        assert done.code == 0, done.err
    return "".join(printed)


def _ask(texts: list[str], folder: Path) -> None:
    with open_reader(f"sqlite:///{folder / 'kosmograph.db'}") as reader:
        for query in filter(str.strip, ";\n".join(texts).split(";\n")):
            reader.ask(query)


def test_folders_and_lists(line: Kosmograph) -> None:
    """The pages say `demo`; how images are listed is the same without a model, and a minute shorter."""
    for block in of("null"):
        if block.runs:
            run(Block(block.page, block.line, "", block.text.replace("--model demo", "--model null"), ""), line)


def test_s3(line: Kosmograph, s3: Any) -> None:
    s3.put("one.jpg", (ROOT / "examples/images/note.jpg").read_bytes())
    for block in of("s3"):
        if block.runs:
            text = re.sub(r"http://127\.0\.0\.1:\d+", s3.endpoint, block.text).replace(
                "s3://photos/", f"s3://{s3.bucket}/"
            )
            script = text.replace("--model demo", "--model null").replace("\nexport", "; export").replace("\n", "; ")
            run(Block(block.page, block.line, "", script.strip("; "), ""), line)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_services_around_postgresql(
    line: Kosmograph, database: Database, database_url: str, own_broker: Any, wait_for: Callable[..., Any]
) -> None:
    """Blocks of one command of a service are started, and the others run when they are done."""
    with database.write() as connection:  # `sql` refuses a superuser, which the tests' own is
        connection.exec_driver_sql("CREATE ROLE keeper LOGIN IN ROLE pg_read_all_data, pg_write_all_data")
    db = make_url(database_url).set(username="keeper").render_as_string(hide_password=False)
    variables = {"KOSMOGRAPH_DB": db, "KOSMOGRAPH_BROKER": own_broker.url, "KOSMOGRAPH_MODEL": "null"}
    texts = [block for block in of("services") if block.runs]
    services = [block for block in texts if block.text.startswith(("kosmograph dispatch", "kosmograph worker"))]
    assert len(services) == 3
    first, *rest = [block for block in texts if block not in services]
    run(Block(first.page, first.line, "", first.text.splitlines()[-1], ""), line, **variables)
    for block in services:
        line.start(*shlex.split(block.text)[1:], **variables)
    wait_for(lambda: '"finished"' in line.here("status", "--json", **variables).out, 60.0)
    for block in rest:
        run(block, line, **variables)
