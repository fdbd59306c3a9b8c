"""An export is there whole or not at all, says what it is, and harms nothing that lies in its way."""

import csv
import hashlib
import json
import os
import tarfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from catalog.exports import FORMATS, run
from catalog.exports.base import Options
from catalog.exports.manifest import listed_files, unlisted_file, write_manifest, write_unfinished
from catalog.exports.run import Order, export
from catalog.reader import Reader, open_reader
from catalog.search import Search
from schemas.database import Database
from schemas.errors import SetupError, UsageError
from schemas.ledger import pruning
from schemas.recipes import Recipe
from schemas.uris import path_of
from tests.catalog.conftest import Picture, Shelve, Thing
from tests.catalog.exports.conftest import CAT, DOG, fetch, manifest_of, name_of, picture

ALL = sorted(FORMATS)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {
        "photos",
        "kosmograph.db",
        "kosmograph.db-wal",
        "kosmograph.db-shm",
    }


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("format_", ALL)
def test_manifest_says_what_it_is_and_hashes_every_file(take: Any, format_: str, tmp_path: Path) -> None:
    path, made = take(format_, task="brief")
    told = manifest_of(path)
    assert (told["job"], told["job_state"], told["format"]) == ("zoo", "finished", format_)
    assert told["filters"] == {"task": "brief"}
    recipe = Recipe(task="brief", prompt="<grounding>brief", model="null", revision="r", dtype="float32")
    assert told["recipes"] == [json.loads(recipe.canonical)]
    assert told["counts"] == dict(made.counts)
    assert told["left_out"] == {reason: count for reason, count in made.left_out.items() if count}
    folder = path if path.is_dir() else path.parent
    files = {one["path"]: one for one in told["files"]}
    for name, one in files.items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one["bytes"], one["sha256"])
    manifest = "manifest.json" if path.is_dir() else f"{path.name}.manifest.json"
    if path.is_dir():
        there = {one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()}
        assert names_in(tmp_path) == {path.name}
    else:
        there = names_in(tmp_path)
    assert there == {*files, manifest}


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("format_", ["jsonl", "yolo"])
def test_what_is_there_stays_without_force_and_is_replaced_with_it(take: Any, format_: str) -> None:
    path, _ = take(format_)
    with pytest.raises(SetupError, match="--force"):
        take(format_)
    before = manifest_of(path)["counts"]["images"]
    take(format_, force=True, phrases=("cat",))
    assert (before, manifest_of(path)["counts"]["images"]) == (4, 2)
    assert names_in(path.parent) == ({path.name} if path.is_dir() else {path.name, f"{path.name}.manifest.json"})


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("format_", ["jsonl", "labelstudio", "hf"])
def test_force_deletes_nothing_that_is_not_ours(take: Any, format_: str, tmp_path: Path) -> None:
    foreign = tmp_path / f"out.{format_}"
    if format_ == "hf":
        take(format_)
        foreign = foreign / "train" / "notes.txt"
    if format_ == "labelstudio":
        foreign = tmp_path / "out.labelstudio.config.xml"
    foreign.write_text("mine")
    with pytest.raises(SetupError, match="no part of an export"):
        take(format_, force=True)
    assert foreign.read_text() == "mine"


@pytest.mark.usefixtures("zoo")
def test_force_takes_away_what_only_the_old_format_has(take: Any, tmp_path: Path) -> None:
    for format_, sides in [("labelstudio", {"out.config.xml"}), ("jsonl", set()), ("labelstudio", {"out.config.xml"})]:
        take(format_, out="out", force=True)
        assert names_in(tmp_path) == {"out", "out.manifest.json"} | sides


def test_a_manifest_lists_every_file_of_its_folder_and_no_other(tmp_path: Path) -> None:
    names = ["a", "a.b", "b/c", "b/a/z", "b-/c", "b/c-", "b.txt", "B/x", "ü/1"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    manifest = tmp_path / "manifest.json"
    assert write_manifest(manifest, {}) == sum(map(len, map(str.encode, names)))
    assert sorted(listed_files(manifest)) == sorted(names)
    assert unlisted_file(tmp_path, manifest) is None
    (tmp_path / "b/c").unlink()
    assert unlisted_file(tmp_path, manifest) is None
    for foreign in ("0", "b/b", "b/a/zz", "zz", "ü/0/1"):
        (tmp_path / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / foreign).symlink_to(tmp_path)
        assert unlisted_file(tmp_path, manifest) == foreign
        (tmp_path / foreign).unlink()


def test_what_lies_in_the_way_is_looked_through_in_constant_memory(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    write_unfinished(manifest, (f"images/{number:0100}" for number in range(20_000)))
    (tmp_path / "notes.txt").touch()
    tracemalloc.start()
    try:
        assert unlisted_file(tmp_path, manifest) == "notes.txt"
        (tmp_path / "notes.txt").rename(tmp_path / "zoo")
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / ("z" * 9)).touch()
        assert unlisted_file(tmp_path, manifest) == "zoo"
        (tmp_path / "zoo").unlink()
        assert unlisted_file(tmp_path, manifest) == "images/zzzzzzzzz"
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("format_", ["yolo", "hf"])
def test_a_linked_picture_that_goes_away_meanwhile_costs_only_itself(
    take: Any, zoo: dict[str, Picture], format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog, real = path_of(zoo["dog"].uri), run.write_manifest
    monkeypatch.setattr(run, "write_manifest", lambda *about: [dog.unlink(), real(*about)][1])
    path, made = take(format_, images="link")
    files = manifest_of(path)["files"]
    links = {one["path"]: one["link"] for one in files if "link" in one}
    assert set(links.values()) == {str(path_of(one.uri)) for one in zoo.values()}
    assert all(os.readlink(path / name) == link for name, link in links.items())
    assert made.bytes == sum(one.get("bytes", 0) for one in files)
    monkeypatch.undo()
    assert take(format_, images="link", force=True)[1].lost == 1


@pytest.mark.usefixtures("zoo")
def test_an_empty_folder_may_be_filled(take: Any, tmp_path: Path) -> None:
    (tmp_path / "out.yolo").mkdir()
    path, _ = take("yolo")
    assert (path / "data.yaml").exists()


@pytest.mark.usefixtures("zoo")
def test_a_link_is_not_followed_into_its_folder(take: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "out.hf").symlink_to("mine")
    with pytest.raises(SetupError):
        take("hf", force=True)
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("format_", ALL)
def test_a_failure_in_the_middle_leaves_nothing(
    take: Any, format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*about: Any) -> Iterator[Any]:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr("catalog.exports.run._records", broken)
    with pytest.raises(SetupError, match="No space left on device"):
        take(format_)
    assert names_in(tmp_path) == set()


@pytest.mark.usefixtures("zoo")
def test_a_failed_replacement_leaves_the_old_export(take: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = take("yolo")
    real = os.rename

    def rename(old: Any, new: Any) -> None:
        if Path(old).name == "out":
            raise OSError(5, "Input/output error")
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(SetupError, match="Input/output error"):
        take("yolo", force=True)
    assert names_in(tmp_path) == {path.name}
    assert manifest_of(path)["counts"]["images"] == 4


@pytest.mark.usefixtures("zoo")
def test_a_folder_that_is_missing_is_said_in_one_line(take: Any) -> None:
    with pytest.raises(SetupError, match="there is no folder"):
        take("jsonl", out="no/such/out.jsonl")


@pytest.mark.usefixtures("zoo")
def test_a_job_that_is_not_there_is_refused(take: Any) -> None:
    with pytest.raises(UsageError, match="no job 'farm'"):
        take("jsonl", job="farm")


@pytest.mark.parametrize("format_", ["yolo", "webdataset", "hf"])
def test_a_picture_that_cannot_be_had_is_counted_and_named(take: Any, zoo: dict[str, Picture], format_: str) -> None:
    path_of(zoo["dog"].uri).unlink()
    path_of(zoo["man"].uri).write_bytes(b"another picture")
    path, made = take(format_)
    named = [json.loads(line) for line in (path / "left_out.jsonl").read_text().splitlines()]
    assert {(name_of(one["uri"]), one["why"]) for one in named} == {("dog", "not_found"), ("man", "changed")}
    assert made.lost == 2
    assert made.left_out["pictures: not_found"] == made.left_out["pictures: changed"] == 1
    assert made.counts["images"] == 2
    assert manifest_of(path)["left_out"]["pictures: changed"] == 1


def test_both_recipes_of_a_picture_that_cannot_be_had_are_named(take: Any, shelve: Shelve) -> None:
    shelve("gone", Picture("file:///no/such.jpg", [Thing("a dog", [DOG])]), task=("brief", "detailed"))
    path, made = take("yolo", job="gone")
    assert made.lost == 2
    assert not made.counts["images"]
    assert (path / "train.txt").read_text() == ""


def test_links_are_only_to_local_files(shelve: Shelve, reader: Reader, tmp_path: Path) -> None:
    shelve("far", Picture("s3://bucket/1.jpg", [Thing("a dog", [DOG])], data=b"far"))
    search, options = Search(job="far"), Options(images="link")
    order = Order(search=search, format="yolo", out=tmp_path / "out", options=options)
    with pytest.raises(UsageError, match="no local file"):
        export(reader, order, lambda uri: b"far")
    assert names_in(tmp_path) == set()


HOSTILE = [
    "quote \" and '.jpg",
    "new\nline.jpg",
    "carriage\rreturn.jpg",
    "..\\..\\up.jpg",
    "x" * 251 + ".jpg",
    "<script>&.jpg",
    "-rf.jpg",
    ".hidden",
    "ünïcode-日本.jpg",
    "space .jpg ",
]


@pytest.mark.parametrize("format_", ["yolo", "webdataset", "hf", "coco", "csv", "labelstudio"])
def test_hostile_names_stay_inside_the_target(
    take: Any, shelve: Shelve, photos: Path, format_: str, tmp_path: Path
) -> None:
    pictures = [picture(photos / name, [Thing("a dog", [DOG])]) for name in HOSTILE]
    shelve("zoo", *pictures, picture(photos / "b.jpg", [Thing('a "<cat>" \x07 &\r dog\x1b', [CAT])]))
    path, made = take(format_, categories="phrase")
    assert made.counts["images"] == len(HOSTILE) + 1
    assert names_in(tmp_path) - {path.name, f"{path.name}.manifest.json", f"{path.name}.config.xml"} == set()
    if path.is_dir():
        for one in path.rglob("*"):
            name = one.relative_to(path).as_posix()
            assert name.isascii()
            assert name.isprintable()
            assert len(one.name) < 100
            assert one.resolve().is_relative_to(path)
    for table in [path] if format_ == "csv" else path.glob("images.csv"):
        with table.open(newline="") as file:
            rows = list(csv.reader(file))
        assert len(rows) == 1 + len(HOSTILE) + 1
        assert {len(row) for row in rows} == {len(rows[0])}
    for shard in path.glob("*.tar") if path.is_dir() else ():
        with tarfile.open(shard) as tar:
            for name in tar.getnames():
                assert "/" not in name
                assert name.count(".") == 1


def test_two_images_of_one_name_are_two_files(take: Any, shelve: Shelve, photos: Path) -> None:
    (photos / "other").mkdir()
    shelve("zoo", picture(photos / "a.jpg", []), picture(photos / "other/a.jpg", [], size=(8, 8)))
    path, _ = take("yolo")
    assert len(set((path / "train.txt").read_text().splitlines())) == len(list(path.glob("images/*/*.jpg"))) == 2


@pytest.mark.usefixtures("zoo")
def test_filters_take_images_and_only_found_takes_their_boxes(take: Any) -> None:
    lines = [json.loads(line) for line in take("jsonl", phrases=("cat",), min_score=0.45)[0].read_text().splitlines()]
    assert {name_of(line["uri"]): len(line["entities"]) for line in lines} == {"wrong": 2}
    path, made = take("jsonl", phrases=("cat",), only_found=True, force=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    phrases = {name_of(line["uri"]): [one["phrase"] for one in line["entities"]] for line in lines}
    assert phrases == {"dog": ["two cats"], "wrong": ["a cat"]}
    assert made.left_out["boxes that the filters did not find"] == 2
    assert manifest_of(path)["filters"] == {"phrases": ["cat"], "only_found": True}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.usefixtures("zoo")
def test_slow_pictures_do_not_have_the_server_cut_the_export_off(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a server that ends who stands idle in a transaction, when pictures and hashes take longer, all is there."""
    real = run.write_manifest
    monkeypatch.setattr(run, "write_manifest", lambda *about: [time.sleep(0.6), real(*about)][1])
    order = Order(search=Search(job="zoo"), format="webdataset", out=tmp_path / "out")
    url = make_url(database_url).update_query_dict({"options": "-c idle_in_transaction_session_timeout=300"})
    with open_reader(url.render_as_string(hide_password=False)) as reader:
        made = export(reader, order, lambda uri: [time.sleep(0.6), fetch(uri)][1])
        assert reader.select("SELECT 1").rows
    assert made.counts["images"] == 4


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("left", ["a part", "nothing"])
def test_a_job_that_is_pruned_meanwhile_is_not_exported(
    reader: Reader, database: Database, tmp_path: Path, left: str
) -> None:
    """Else the file would lack what went before it was read, and nobody would know."""

    def prune(_: int) -> None:
        (job,) = pruning.ended_jobs(database, names=["zoo"])
        assert pruning.mark(database, job)
        if left == "nothing":
            assert ("jobs", 1) in list(pruning.remove_marked(database))

    order = Order(search=Search(job="zoo"), format="jsonl", out=tmp_path / "out.jsonl")
    with pytest.raises(SetupError, match="'zoo' is being pruned"):
        export(reader, order, fetch, progress=prune)
    assert not names_in(tmp_path)
