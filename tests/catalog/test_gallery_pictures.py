"""Pictures through the gallery: whose they are, how large, how long they are kept, and what is shown without one."""

import hashlib
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from catalog.gallery.cache import Cache
from catalog.gallery.pictures import placeholder
from schemas.database import Database
from schemas.errors import Code, SetupError
from schemas.uris import file_uri
from tests.catalog.conftest import Picture, Shelve
from tests.catalog.galleries import Gallery, RealPicture, gallery, ids_of, real_picture, set_roots

__all__ = ["gallery"]


def test_pictures_are_upright_and_sized_down(
    shelve: Shelve, gallery: Gallery, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    left_half = Image.new("RGB", (4000, 2000), "red")
    left_half.paste("blue", (2000, 0, 4000, 2000))
    left_half.save(path, exif=turned)
    shelve("job", RealPicture(file_uri(path), size=(2000, 4000)), real_picture(tmp_path / "small.jpg", size=(40, 30)))
    client, ids = gallery(), ids_of(database)
    turned_id, small_id = ids["a.jpg"], ids["small.jpg"]
    for address, size in (
        (f"/thumbnails/{turned_id}", (160, 320)),
        (f"/pictures/{turned_id}", (800, 1600)),
        (f"/pictures/{small_id}", (40, 30)),
    ):
        image = Image.open(BytesIO(client.get(address).content))
        assert (image.format, image.size) == ("JPEG", size)
    thumbnail = Image.open(BytesIO(client.get(f"/thumbnails/{turned_id}").content)).convert("RGB")
    (red, _, _), (_, _, blue) = thumbnail.getpixel((80, 40)), thumbnail.getpixel((80, 280))  # type: ignore[misc]
    assert (red > 200, blue > 200) == (True, True)


def test_browser_keeps_a_picture_by_its_content(shelve: Shelve, gallery: Gallery, tmp_path: Path) -> None:
    picture = real_picture(tmp_path / "a.jpg")
    shelve("job", picture)
    client = gallery()
    assert f'src="/thumbnails/1?v={picture.sha256[:12]}"' in client.get("/").text
    named = client.get(f"/thumbnails/1?v={picture.sha256[:12]}")
    assert named.headers["Cache-Control"] == "private, max-age=86400"
    assert client.get("/thumbnails/1").headers["Cache-Control"] == "private, no-cache"
    again = client.get("/thumbnails/1", headers={"If-None-Match": named.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_picture_is_served_below_the_roots_of_a_job_that_has_it(
    shelve: Shelve, gallery: Gallery, database: Database, tmp_path: Path
) -> None:
    inside, outside = real_picture(tmp_path / "in" / "a.jpg"), real_picture(tmp_path / "out" / "b.jpg", colour="red")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "out" / "b.jpg")
    shelve("job", inside, outside, RealPicture(file_uri(tmp_path / "in" / "link.jpg")))
    client, ids = gallery(), ids_of(database)
    images = [ids[name] for name in ("a.jpg", "b.jpg", "link.jpg")]

    def statuses() -> list[int]:
        return [client.get(f"/{kind}/{image}").status_code for kind in ("thumbnails", "pictures") for image in images]

    set_roots(database, "job", json.dumps([str(tmp_path / "in")]))
    assert statuses() == [200, 403, 403] * 2
    refused = client.get(f"/pictures/{ids['b.jpg']}").text
    assert "the folders that its jobs may read" in " ".join(ElementTree.fromstring(refused).itertext())
    assert str(tmp_path) not in refused
    set_roots(database, "job", None)
    assert statuses() == [200] * 6
    set_roots(database, "job", json.dumps([str(tmp_path / "in")]))  # what is in the cache by now is refused as well
    assert statuses() == [200, 403, 403] * 2
    shelve("another", outside)
    set_roots(database, "another", json.dumps([str(tmp_path / "out")]))
    assert statuses() == [200, 200, 403] * 2
    set_roots(database, "job", "[]")
    assert statuses() == [403, 200, 403] * 2


def test_what_cannot_be_shown_says_why(shelve: Shelve, gallery: Gallery, database: Database, tmp_path: Path) -> None:
    gone, changed = real_picture(tmp_path / "gone.jpg"), real_picture(tmp_path / "changed.jpg", colour="red")
    failed = Picture(file_uri(tmp_path / "failed.jpg"), code=Code.TRUNCATED)
    shelve("job", gone, changed, failed)
    (tmp_path / "gone.jpg").unlink()
    real_picture(tmp_path / "changed.jpg", colour="blue")
    client, ids = gallery(), ids_of(database) | {"none": 99}
    why = {"gone.jpg": "no such file", "changed.jpg": "changed", "failed.jpg": "not be read", "none": "no such image"}
    for name, said in why.items():
        answer = client.get(f"/thumbnails/{ids[name]}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "image/svg+xml")
        assert answer.headers["Cache-Control"] == "no-store"
        assert said in " ".join(ElementTree.fromstring(answer.text).itertext())


def test_bytes_that_no_loader_has_decoded_are_not_decoded_here(
    shelve: Shelve, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    shelve("job", real_picture(path))
    path.write_bytes(b"\xff\xd8\xff a bomb")
    seen: list[Any] = []
    monkeypatch.setattr("worker.images.upright", lambda *given, **named: seen.append(given))
    assert gallery().get("/pictures/1").status_code == 404
    assert seen == []


def test_pictures_come_from_s3_through_the_server(
    shelve: Shelve, gallery: Gallery, database: Database, s3: Any, tmp_path: Path
) -> None:
    local = real_picture(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()

    class Stored(Picture):
        @property
        def sha256(self) -> str:
            return local.sha256

    shelve("job", Stored(s3.put("a b/ü?.jpg", data), size=local.size), Stored(f"s3://{s3.bucket}/none.jpg"))
    client, ids = gallery(), ids_of(database)
    assert client.get(f"/thumbnails/{ids['none.jpg']}").status_code == 404
    assert client.get(f"/thumbnails/{ids['ü?.jpg']}").headers["Content-Type"] == "image/jpeg"


def test_reason_is_text_in_the_placeholder() -> None:
    drawing = bytes(placeholder("<script>&\"'\n\u202e" + "x" * 300, 502).body).decode()
    assert "<script>" not in drawing
    assert r"<script>&\"'\n" in "".join(ElementTree.fromstring(drawing).itertext()).replace('"', r"\"")


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_cache_stays_within_its_bound_and_loses_what_was_used_least_recently(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    one, other = Cache(folder, 100_000), Cache(folder, 100_000)
    favourite = hashlib.sha256(b"favourite").hexdigest()
    one.put(favourite, b"f" * 1000)
    for number in range(300):
        key = hashlib.sha256(bytes([number % 256, number // 256])).hexdigest()
        (one if number % 2 else other).put(key, b"x" * 1000)
        assert one.get(favourite) == b"f" * 1000
        assert sum(files(folder).values()) <= 120_000
    assert favourite in files(folder)
    assert sum(files(folder).values()) >= 70_000
    assert one.get("ab" * 32) is None
    assert not [name for name in files(folder) if name.startswith(".new-")]


def test_cache_of_a_full_disk_keeps_nothing_and_does_not_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache", 1000)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.put("abc", b"data")
    assert cache.get("abc") is None
    assert files(tmp_path / "cache") == {}


def test_cache_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    for name in ("open", "link"):
        with pytest.raises(SetupError, match="KOSMOGRAPH_GALLERY_CACHE"):
            Cache(tmp_path / name, 1000)
    Cache(tmp_path / "own", 1000)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
