"""`export` as people type it: what it says, its exit codes, and what is left when it is cut off."""

import hashlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from kosmograph.export import Pictures, options_for
from schemas.database import Database
from schemas.errors import Code, ImageFailure, SetupError, UsageError
from schemas.roots import Roots
from schemas.settings import Settings
from schemas.uris import file_uri


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith("kosmograph.db")}


def test_export_says_what_it_has_written(cli: Any, database: Database, database_url: str, new_job: Any) -> None:
    new_job(database, images=3)
    done = cli("export", "job", "--format", "coco", "--out", "out.json", "--db", database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "out.json: 2 images, 2 captions, 2 boxes\n"
    done = cli("export", "job", "--format", "jsonl", "--out", "out.jsonl", "--db", database_url, "--json")
    assert json.loads(done.stdout)["boxes"] == 2
    done = cli("export", "job", "--format", "jsonl", "--out", "out.jsonl", "--db", database_url)
    assert done.returncode == 1
    assert "--force" in done.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_captions_that_the_index_of_words_lacks_are_not_passed_by_in_silence(
    cli_here: Any,
    database: Database,
    database_url: str,
    new_job: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(database: Database) -> int:  # as a file that this user may not write: root may write any
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("attempt to write a readonly database"))

    new_job(database)
    monkeypatch.setattr("schemas.caption_search.index_captions", closed)
    arguments = ["export", "job", "--format", "jsonl", "--text", "snowman", "--out", "out", "--db", database_url]
    done = cli_here(*arguments)
    assert done.code == 1
    assert "--text would miss them; export as" in done.err
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("asked", [[], ["--text", "snowman"], ["--task", "brief", "--model", "null"]])
def test_only_found_needs_something_that_boxes_are_found_by(
    cli_here: Any, database: Database, database_url: str, new_job: Any, asked: list[str]
) -> None:
    new_job(database)
    arguments = ["export", "job", "--format", "jsonl", "--out", "out", "--only-found", "--db", database_url]
    done = cli_here(*arguments, *asked)
    assert done.code == 2
    assert "--only-found needs a phrase, a relation, or a bound on boxes" in done.err
    done = cli_here(*arguments, "--min-area", "0.01", *asked)
    assert done.out == "out: 1 images, 1 captions, 1 boxes\n"


def test_pictures_that_cannot_be_read_exit_3(cli: Any, database: Database, database_url: str, new_job: Any) -> None:
    new_job(database)
    done = cli("export", "job", "--format", "yolo", "--out", "out", "--db", database_url, "--images", "copy")
    assert done.returncode == 3
    assert "left_out.jsonl" in done.stderr


@pytest.mark.parametrize(
    ("format_", "given", "said"),
    [
        ("xml", {}, "unknown format"),
        ("jsonl", {"categories": "head"}, "has no --categories"),
        ("coco", {"shard_images": 3}, "for webdataset"),
        ("coco", {"categories": "colour"}, "head or phrase"),
        ("hf", {"images": "all"}, "copy or link or none"),
    ],
)
def test_options_that_a_format_has_not_are_refused(format_: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        options_for(format_, given)


def test_pictures_are_read_below_the_roots_only(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("in/a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"bytes")
    pictures = Pictures(Settings(), Roots([str(tmp_path / "in")]))
    assert pictures.fetch(file_uri(tmp_path / "in/a.jpg")) == b"bytes"
    with pytest.raises(ImageFailure) as refused:
        pictures.fetch(file_uri(tmp_path / "b.jpg"))
    assert refused.value.code == Code.ACCESS_DENIED


def test_many_unreadable_pictures_in_a_row_end_the_export(tmp_path: Path) -> None:
    pictures = Pictures(Settings(breaker_images=3), None)
    for _ in range(2):
        with pytest.raises(ImageFailure):
            pictures.fetch(file_uri(tmp_path / "none.jpg"))
    with pytest.raises(SetupError, match="3 pictures in a row"):
        pictures.fetch(file_uri(tmp_path / "none.jpg"))


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
from catalog.exports import run
records = run._records
def slow(*about):
    for record in records(*about):
        yield record
        print("one", flush=True)
        time.sleep(60)
run._records = slow
from kosmograph.__main__ import main
sys.argv[0] = "kosmograph"
main()
"""


@pytest.mark.parametrize("format_", ["jsonl", "webdataset"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_is_cut_off_leaves_nothing_under_its_name(
    cli: Any, database: Database, database_url: str, new_job: Callable[..., Any], tmp_path: Path, how: int, format_: str
) -> None:
    new_job(database, images=3)
    arguments = ["export", "job", "--format", format_, "--out", "out", "--db", database_url]
    with subprocess.Popen(
        [sys.executable, "-P", "-c", SLOW, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"KOSMOGRAPH_S3_ENDPOINT_URL": "http://127.0.0.1:9"},
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"one\n"
        process.send_signal(how)
    drafts = {name for name in names_in(tmp_path) if name.endswith(".draft")}
    assert names_in(tmp_path) - drafts == set()
    assert len(drafts) == (1 if how == signal.SIGKILL else 0)
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    done = cli("export", "job", "--format", "jsonl", "--out", "out", "--db", database_url)
    assert done.returncode == 0
    assert names_in(tmp_path) == {"out", "out.manifest.json"}


KILLED = """
import os, signal, sys
left, replace = int(sys.argv.pop(1)), os.replace
def replaced(*about):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*about)
os.replace = replaced
from kosmograph.__main__ import main
sys.argv[0] = "kosmograph"
main()
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("moves", range(4))
def test_killed_while_it_replaces_an_export_leaves_no_manifest_of_other_files(
    cli: Any, database: Database, database_url: str, new_job: Callable[..., Any], tmp_path: Path, moves: int
) -> None:
    """A manifest with counts is true of the files beside it, and the next --force goes through."""
    arguments = ["export", "job", "--format", "labelstudio", "--out", "out", "--db", database_url]
    new_job(database)
    assert cli(*arguments).returncode == 0
    new_job(database, name="other", images=4)
    arguments[1] = "other"
    command = [sys.executable, "-P", "-c", KILLED, str(moves), *arguments, "--force"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    told = json.loads((tmp_path / "out.manifest.json").read_text())
    assert ("counts" in told) == (moves == 0)
    for one in told["files"] if "counts" in told else []:
        assert hashlib.sha256((tmp_path / one["path"]).read_bytes()).hexdigest() == one["sha256"]
    assert cli(*arguments, "--force").returncode == 0
    assert names_in(tmp_path) == {"out", "out.manifest.json", "out.config.xml"}
    assert json.loads((tmp_path / "out.manifest.json").read_text())["job"] == "other"


def test_a_full_disk_leaves_nothing_and_is_said_in_one_line(
    database: Database, database_url: str, new_job: Any, tmp_path: Path
) -> None:
    new_job(database, images=3, caption="a dog " * 2000)
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "kosmograph",
            "export",
            "job",
            "--format",
            "jsonl",
            "--out",
            "o",
            "--db",
            database_url,
        ],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "kosmograph: o cannot be written: File too large; nothing of it is left\n"
    assert names_in(tmp_path) == set()
