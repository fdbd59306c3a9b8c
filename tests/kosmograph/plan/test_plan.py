"""`plan` as a person runs it: real queue, worker, loaders and databases; the null model, as it is there at once."""

import json
import os
import signal
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import create_engine, make_url, text

from kosmograph.plan.run import known, require_some
from kosmograph.plan.scratch import scratch_database, size_of
from schemas.database import Database
from schemas.errors import SetupError
from schemas.items import Item
from schemas.ledger.known import count_annotated
from schemas.recipes import Recipe
from tests.catalog.conftest import Picture
from tests.kosmograph.conftest import Cli
from tests.pipeline.conftest import Kosmograph, Run

NULL = ("--model", "null")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures, one that is cut off, one that is none, and a name that is not looked at."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(10):
        Image.effect_noise((64, 48), 10.0 + number).convert("RGB").save(folder / f"{number}.jpg")
    (folder / "cut-off.jpg").write_bytes((folder / "0.jpg").read_bytes()[:700])
    (folder / "letter.jpg").write_text("Dear reader, this is no picture. " * 20)
    (folder / "notes.txt").write_text("nor this")
    return folder


def test_plan_tells_what_a_folder_takes_and_leaves_nothing(pictures: Path, tmp_path: Path, cli: Cli) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = cli("plan", "pictures", *NULL, "--json", "--workers", "2", "--deadline", "8h", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["counted"], found["left_out"]) == (12, True, {"not an image's extension": 1})
    assert found["sample"]["images"] == 12
    assert {one["code"]: (one["seen"], one["images"]["high"]) for one in found["failures"]} == {
        "truncated": (1, 1),
        "not_an_image": (1, 1),
    }
    assert found["time_s"]["value"] > 0
    assert found["worker_hours"]["value"] == pytest.approx(2 * found["time_s"]["value"] / 3600)
    assert found["database"] == {"kind": "SQLite", "bytes": None, "bytes_per_image": None}  # they fit into its pages
    assert found["workers_for_deadline"] == 1
    assert found["reused_images"] == {"value": 0, "low": 0, "high": 0}
    assert not list(tmp_path.glob("kosmograph.db*"))
    assert not list(temporary.iterdir())


def test_plan_on_postgresql_takes_a_database_beside_the_users(
    pictures: Path, postgres_url: str, do: Callable[[str], list[Any]], cli: Cli
) -> None:
    do('CREATE DATABASE "kosmograph_plan_1_old"')  # of a plan that was killed long ago
    do('CREATE DATABASE "kosmograph_plan_mine"')  # nobody's plan
    do('CREATE DATABASE "kosmograph_plan_2_busy"')
    busy = create_engine(make_url(postgres_url).set(drivername="postgresql+psycopg", database="kosmograph_plan_2_busy"))
    with busy.connect():
        done = cli("plan", "pictures/1.jpg", *NULL, "--db", postgres_url)
    busy.dispose()
    assert done.returncode == 0, done.stderr
    first, second, *lines = done.stdout.splitlines()
    assert first == "images      1"
    assert second.startswith("tried       1 image, all of them, in ")
    assert "failures    none seen" in lines
    assert "an image, PostgreSQL)" in done.stdout
    left = {row[0] for row in do("SELECT datname FROM pg_database WHERE datname LIKE 'kosmograph_plan%'")}
    assert left == {"kosmograph_plan_mine", "kosmograph_plan_2_busy"}
    for name in left:
        do(f'DROP DATABASE "{name}"')
    with closing(Database(postgres_url)) as database, database.read() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM jobs")).scalar() == 0


def test_role_that_may_create_no_database_gets_a_file_and_a_word_about_it(
    postgres_url: str, do: Callable[[str], list[Any]], tmp_path: Path, capsys: Any
) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    do(f"CREATE ROLE {role} LOGIN IN ROLE pg_read_all_data")
    url = make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
    with scratch_database(url, tmp_path) as database:
        assert database.path == tmp_path / "plan.db"
        assert size_of(database) > 100_000
    assert not list(tmp_path.glob("plan.db*"))
    said = capsys.readouterr().err
    assert "no database for the trial on the server (permission denied to create database); it takes SQLite" in said


def test_sources_without_an_image_are_told(tmp_path: Path, cli_here: Callable[..., Run]) -> None:
    (tmp_path / "empty").mkdir()
    done = cli_here("plan", "empty", *NULL)
    assert (done.code, done.out) == (1, "")
    assert "no image in empty" in done.err


def test_trial_without_a_caption_is_told() -> None:
    failed: Any = SimpleNamespace(settled=3, failures={"timeout": 1, "not_found": 2}, messages={"not_found": "gone"})
    with pytest.raises(SetupError, match="all 3 images of the sample failed, most with not_found: gone"):
        require_some(failed)
    with pytest.raises(SetupError, match="no image was done within 9 s; --sample N"):
        require_some(SimpleNamespace(settled=0, failures={}, wall_s=9.0))  # type: ignore[arg-type]


def test_ctrl_c_ends_a_plan_and_leaves_nothing(
    tmp_path: Path, kosmograph: Kosmograph, wait_for: Callable[..., Any]
) -> None:
    folder, temporary = tmp_path / "many", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "0.png")
    for number in range(1, 300):
        os.link(folder / "0.png", folder / f"{number}.png")
    process = kosmograph.start("plan", str(folder), *NULL, "--sample", "100000", TMPDIR=str(temporary))
    wait_for(lambda: list(temporary.glob("kosmograph-*/worker-*.log")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.strip().endswith("interrupted; of the trial nothing is left")
    assert not list(temporary.glob("kosmograph-*"))


def test_what_is_annotated_already_is_counted(database: Database, shelve: Any) -> None:
    shelve("job", *(Picture(f"s3://b/{number}.jpg") for number in range(4)))
    recipe = Recipe(task="brief", prompt="<grounding>brief", model="null", revision="r", dtype="float32")
    other = recipe.model_copy(update={"prompt": "<grounding>other"})
    items = [Item("s3://b/0.jpg", "v"), Item("s3://b/1.jpg"), Item("s3://b/2.jpg", "newer"), Item("s3://b/9.jpg", "v")]
    with database.read() as connection:
        assert count_annotated(connection, items, [recipe]) == 2
        assert count_annotated(connection, items, [recipe, other]) == 0


def test_database_of_another_version_is_not_looked_up(database: Database) -> None:
    assert known([], [], database) == (0, "")
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    count, why = known([], [], database)
    assert count is None
    assert "has schema 0001" in why
