"""Each export is read back by the library that it is for."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from catalog.exports.base import document
from catalog.reader import Reader
from catalog.search import Search
from schemas.uris import path_of
from tests.catalog.conftest import Picture, Shelve, Thing, all_records
from tests.catalog.exports.conftest import CAT, DOG, MAN, name_of, picture

GRIT = """
    clip_similarity_vitb32 clip_similarity_vitl14 id url caption key status error_message width height original_width
    original_height exif sha256 noun_chunks ref_exps
"""


def bytes_of(zoo: dict[str, Picture]) -> dict[str, bytes]:
    return {name: one.data for name, one in zoo.items()}


pytestmark = pytest.mark.usefixtures("zoo")


def test_json_lines_hold_every_record_whole(take: Any, reader: Reader) -> None:
    path, made = take("jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [document(record) for record in all_records(reader, Search(job="zoo"))]
    shown = {name_of(line["uri"]): line["entities"] for line in lines}
    assert {name: len(entities) for name, entities in shown.items()} == {"dog": 2, "man": 1, "wrong": 2, "sky": 0}
    assert shown["wrong"][0]["boxes"][0]["valid"] is False
    assert made.counts == {"images": 4, "annotations": 4, "entities": 5, "boxes": 6}


def test_csv_has_the_rows_of_the_view_and_one_for_an_image_without_boxes(take: Any, reader: Reader) -> None:
    path, _ = take("csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    query = "SELECT * FROM groundings WHERE job = 'zoo' ORDER BY image_id, annotation_id, entity, box"
    view = reader.select(query)
    assert list(rows[0]) == list(view.columns)
    with_box = [row for row in rows if row["box"]]
    for found, expected in zip(with_box, view.records, strict=True):
        expected["valid"] = str(bool(expected["valid"])).lower()
        assert found == {name: "" if value is None else str(value) for name, value in expected.items()}
    (without,) = [row for row in rows if not row["box"]]
    assert without["caption"] == 'An image of, oddly, "nothing"\nat all'
    assert without["phrase"] == without["score"] == ""


def test_parquet_holds_the_same_records_as_json_lines(take: Any) -> None:
    lines = take("jsonl")[0].read_text().splitlines()
    path, _ = take("parquet")
    assert pyarrow.parquet.read_table(path).to_pylist() == [json.loads(line) for line in lines]


def test_row_groups_of_parquet_are_bounded(take: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.exports.arrow.ROWS_A_GROUP", 3)
    file = pyarrow.parquet.ParquetFile(take("parquet")[0])
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [3, 1]


def test_pycocotools_finds_the_boxes(take: Any) -> None:
    from pycocotools.coco import COCO

    path, made = take("coco")
    coco = COCO(str(path))
    names = {category["name"]: category["id"] for category in coco.loadCats(coco.getCatIds())}
    assert set(names) == {"dog", "cat", "man"}
    assert len(coco.getImgIds()) == 4
    (dog,) = coco.loadAnns(coco.getAnnIds(catIds=[names["dog"]]))
    assert dog["bbox"] == [16.0, 24.0, 32.0, 24.0]
    assert (dog["area"], dog["score"], dog["iscrowd"], dog["phrase"]) == (768.0, 0.9, 0, "A brown dog")
    (image,) = coco.loadImgs([dog["image_id"]])
    assert Path(image["file_name"]).name == "dog.jpg"
    assert Path(image["file_name"]).exists()
    (man,) = coco.loadAnns(coco.getAnnIds(catIds=[names["man"]]))
    left, top, right, bottom = MAN[0] * 100, MAN[1] * 40, MAN[2] * 100, MAN[3] * 40
    assert man["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=0.01)
    (recipe,) = json.loads(path.read_text())["info"]["recipes"]
    assert (recipe["task"], recipe["prompt"], recipe["model"]) == ("brief", "<grounding>brief", "null")
    assert made.left_out == {"invalid boxes": 1}
    assert len(coco.getAnnIds()) == made.counts["boxes"] == 5


def test_categories_may_be_whole_phrases(take: Any) -> None:
    categories = json.loads(take("coco", categories="phrase")[0].read_text())["categories"]
    assert {one["name"]: one["supercategory"] for one in categories} == {
        "brown dog": "dog",
        "two cats": "cat",
        "man in a red hat": "man",
        "cat": "cat",
    }
    assert sorted(one["id"] for one in categories) == [1, 2, 3, 4]


def test_an_image_of_two_recipes_is_one_image_of_coco_and_yolo(take: Any, shelve: Shelve, photos: Path) -> None:
    shelve("two", picture(photos / "both.jpg", [Thing("a dog", [DOG])]), task=("brief", "detailed"))
    coco = json.loads(take("coco", job="two")[0].read_text())
    assert len(coco["images"]) == 1
    assert [one["task"] for one in coco["annotations"]] == ["brief", "detailed"]
    yolo, made = take("yolo", job="two")
    (label,) = yolo.glob("labels/*/*.txt")
    assert len(label.read_text().splitlines()) == 2
    assert made.counts["images"] == 1
    assert len((yolo / "train.txt").read_text().splitlines()) == 1


def yolo_boxes(path: Path) -> dict[str, list[tuple[str, list[float]]]]:
    """Name and corners of each box, by the image."""
    names = yaml.safe_load((path / "data.yaml").read_text())["names"]
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for line in (path / "train.txt").read_text().splitlines():
        label = path / (line.replace("/images/", "/labels/").rpartition(".")[0] + ".txt")
        boxes = found.setdefault(label.stem.rpartition("-")[2], [])
        for row in label.read_text().splitlines():
            number, *sides = row.split()
            x, y, width, height = map(float, sides)
            boxes.append((names[int(number)], [x - width / 2, y - height / 2, x + width / 2, y + height / 2]))
    return found


@pytest.mark.parametrize("images", ["copy", "link", "none"])
def test_yolo_labels_are_the_boxes_and_lie_where_trainers_look(take: Any, zoo: dict[str, Picture], images: str) -> None:
    path, made = take("yolo", images=images)
    told = yaml.safe_load((path / "data.yaml").read_text())
    assert told["train"] == told["val"] == "train.txt"
    found = yolo_boxes(path)
    assert {image: [name for name, _ in boxes] for image, boxes in found.items()} == {
        "dog": ["dog", "cat", "cat"],
        "man": ["man"],
        "wrong": ["cat"],
        "sky": [],
    }
    assert [corners for _, corners in found["dog"]] == [pytest.approx(box, abs=2e-6) for box in (DOG, CAT, DOG)]
    assert found["man"][0][1] == pytest.approx(MAN, abs=2e-6)
    listed = [path / line for line in (path / "train.txt").read_text().splitlines()]
    assert [one.exists() for one in listed] == [images != "none"] * 4
    if images != "none":
        assert {one.stem.rpartition("-")[2]: one.read_bytes() for one in listed} == bytes_of(zoo)
        assert [one.is_symlink() for one in listed] == [images == "link"] * 4
    with (path / "images.csv").open(newline="") as file:
        assert {row["uri"] for row in csv.DictReader(file)} == {one.uri for one in zoo.values()}
    assert made.left_out == {"invalid boxes": 1}


def test_label_studio_takes_the_predictions_for_its_configuration(take: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says of its own parts
        from label_studio_sdk.label_interface import LabelInterface
    path, _ = take("labelstudio", out="tasks.json")
    interface = LabelInterface(path.with_name("tasks.json.config.xml").read_text())
    assert interface.is_valid
    tasks = json.loads(path.read_text())
    assert len(tasks) == 4
    shown = {name_of(task["data"]["uri"]): task for task in tasks}
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        assert all(interface.validate_prediction(prediction) for prediction in task["predictions"])
    (prediction,) = shown["dog"]["predictions"]
    dog, cat, _ = prediction["result"]
    assert dog["value"] == {
        "x": 25.0,
        "y": 50.0,
        "width": 50.0,
        "height": 50.0,
        "rotation": 0,
        "rectanglelabels": ["dog"],
    }
    assert (dog["score"], cat["score"]) == (0.9, 0.4)
    assert prediction["model_version"] == "null@r"
    assert shown["dog"]["data"]["image"].startswith("/data/local-files/?d=")


def test_label_studio_refuses_a_label_that_the_configuration_lacks(take: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from label_studio_sdk.label_interface import LabelInterface
    path, _ = take("labelstudio")
    interface = LabelInterface(path.with_name(path.name + ".config.xml").read_text())
    predictions = [task["predictions"][0] for task in json.loads(path.read_text())]
    prediction = next(one for one in predictions if one["result"])
    prediction["result"][0]["value"]["rectanglelabels"] = ["unheard of"]
    assert not interface.validate_prediction(prediction)


def test_grit_spans_are_the_phrases_in_the_caption(take: Any) -> None:
    path, made = take("grit")
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == GRIT.split()
    rows = {name_of(row["url"]): row for row in table.to_pylist()}
    spans = {name: [row["caption"][int(a) : int(b)] for a, b, *_ in row["noun_chunks"]] for name, row in rows.items()}
    assert spans == {"dog": ["A brown dog", "two cats", "two cats"], "man": [], "wrong": ["a cat"]}
    assert rows["dog"]["noun_chunks"][0][2:] == [*DOG, 0.9]
    ((start, end, *corners, score),) = rows["man"]["ref_exps"]
    assert rows["man"]["caption"][int(start) : int(end)] == "a man in a red hat"
    assert (tuple(corners), score) == (MAN, None)
    assert made.left_out == {"invalid boxes": 1, "images without a box": 1}


def test_grit_tells_every_row_by_an_id_and_a_key_of_its_own(take: Any, shelve: Shelve) -> None:
    """Given two images of the same bytes under two recipes: they share annotations, four rows are four."""
    twins = [Picture(f"s3://b/{n}.jpg", [Thing("a dog", [DOG])], content="same") for n in range(2)]
    shelve("twins", *twins, task=("brief", "detailed"))
    rows = pyarrow.parquet.read_table(take("grit", job="twins")[0]).to_pylist()
    assert [row["id"] for row in rows] == [0, 1, 2, 3]
    assert len({row["key"] for row in rows}) == 4
    assert len({(row["url"], row["key"].partition("-")[0]) for row in rows}) == 2


def test_webdataset_reads_the_shards(take: Any, zoo: dict[str, Picture]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset
    path, _ = take("webdataset", shard_images=3)
    shards = sorted(path.glob("*.tar"))
    assert [shard.name for shard in shards] == ["000000.tar", "000001.tar"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False))
    told = {name_of(json.loads(sample["json"])["uri"]): sample for sample in samples}
    assert {name: sample["jpg"] for name, sample in told.items()} == bytes_of(zoo)
    assert {name: sample["txt"].decode() for name, sample in told.items()} == {n: one.words for n, one in zoo.items()}
    assert json.loads(told["dog"]["json"])["entities"][0]["phrase"] == "A brown dog"
    assert len({sample["__key__"] for sample in samples}) == 4


def test_a_shard_ends_at_its_bytes(take: Any) -> None:
    path, _ = take("webdataset", shard_bytes=3000)
    assert len(list(path.glob("*.tar"))) > 1


@pytest.mark.parametrize("images", ["copy", "none"])
def test_yolo_lists_no_picture_that_its_trainers_pass_by(take: Any, shelve: Shelve, photos: Path, images: str) -> None:
    wrong = Thing("a dog", [(0.8, 0.8, 0.2, 0.2)], valid=False)
    moving = picture(photos / "a.gif", [Thing("a dog", [DOG]), wrong], format_="GIF")
    shelve("mixed", moving, picture(photos / "b.webp", [Thing("a dog", [DOG])], format_="WEBP"))
    path, made = take("yolo", job="mixed", images=images)
    (listed,) = (path / "train.txt").read_text().splitlines()
    assert listed.endswith(".webp")
    assert len(list(path.glob("labels/*/*"))) == 1
    assert made.left_out == {"GIF pictures, which ultralytics does not read": 1}
    assert (made.counts["images"], made.lost) == (1, 0)


@pytest.mark.parametrize("images", ["copy", "link", "none"])
def test_datasets_loads_the_folder(take: Any, zoo: dict[str, Picture], images: str, tmp_path: Path) -> None:
    path, _ = take("hf", images=images)
    rows = loaded(path, tmp_path / "cache")
    shown = {name_of(row["uri"]): row for row in rows}
    assert {name: row["caption"] for name, row in shown.items()} == {name: one.words for name, one in zoo.items()}
    assert shown["dog"]["objects"] == {
        "bbox": [[16.0, 24.0, 32.0, 24.0], [0.0, 0.0, 32.0, 12.0], [16.0, 24.0, 32.0, 24.0]],
        "category": ["dog", "cat", "cat"],
        "phrase": ["A brown dog", "two cats", "two cats"],
        "score": [0.9, 0.4, 0.4],
        "span": [[12, 23], [28, 36], [28, 36]],
    }
    if images != "none":
        assert {name: row["image"].size for name, row in shown.items()} == {n: one.size for n, one in zoo.items()}
        with Image.open(path_of(zoo["dog"].uri)) as original:
            assert shown["dog"]["image"].tobytes() == original.tobytes()


@pytest.mark.parametrize("images", ["copy", "none"])
def test_datasets_loads_pictures_where_most_are_of_a_format_that_it_does_not_know(
    take: Any, shelve: Shelve, photos: Path, images: str, tmp_path: Path
) -> None:
    kinds = [*["AVIF"] * 12, "JPEG", "BMP"]
    shelve("mixed", *(picture(photos / f"{n}.{kind}", [], format_=kind) for n, kind in enumerate(kinds)))
    path, made = take("hf", job="mixed", images=images)
    rows = loaded(path, tmp_path / "cache")
    if images == "none":
        assert (len(rows), made.left_out) == (14, {})
    else:
        assert [row["image"].size for row in rows] == [(64, 48)] * 2
        assert made.left_out == {"AVIF pictures, which datasets does not read": 12}


@pytest.mark.parametrize("images", ["copy", "link", "none"])
def test_datasets_loads_what_is_there_now_and_all_of_it_for_training(
    take: Any, shelve: Shelve, photos: Path, images: str, tmp_path: Path
) -> None:
    """The library takes a split from names too, and has a cache: neither may lose or keep a picture."""
    names = ["test.jpg", "a dev 1.jpg", "val_2.jpg", "plain.jpg"]
    four = [picture(photos / name, []) for name in names]
    shelve("four", *four)
    shelve("five", *four, picture(photos / "later.jpg", []))
    path, _ = take("hf", job="four", images=images)
    assert {row["uri"] for row in loaded(path, tmp_path / "cache")} == {one.uri for one in four}
    take("hf", job="five", images=images, force=True)
    assert len(loaded(path, tmp_path / "cache")) == 5


def loaded(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """The rows of a folder as `datasets` has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        return list(datasets.load_dataset(str(folder), split="train", cache_dir=str(cache)))
