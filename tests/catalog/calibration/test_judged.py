"""The boxes of a catalog held against a truth: which count, which are right, and what is left out and told."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.calibration import judged as module
from catalog.calibration.fit import calibration_of, crossed, too_few
from catalog.calibration.isotonic import curve_of, value_at
from catalog.calibration.judged import FOLDS, Boxes, Judged, judge
from catalog.calibration.truth import read_truth
from catalog.reader import Reader
from schemas.calibration import Identity
from schemas.database import Database
from schemas.errors import UsageError
from schemas.ledger.calibrations import put_calibrations
from tests.catalog.conftest import Picture, Shelve, Thing

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
NULL = Identity("null", "r", "brief", "")

Known = dict[str, dict[str, Sequence[tuple[float, float, float, float]]]]
Look = Callable[..., Judged]


@pytest.fixture
def look(reader: Reader, tmp_path: Path) -> Look:
    """Judges by a truth: the boxes of each category in each image of 640×480 pixels, `size` to have it otherwise."""

    def run(known: Known, *, job: str = "", size: tuple[int, int] = (640, 480), crowd: str = "") -> Judged:
        names = sorted({name for boxes in known.values() for name in boxes} | {"dog", "cat"})
        width, height = size
        document: dict[str, Any] = {
            "images": [{"id": name, "file_name": name, "width": width, "height": height} for name in known],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
            "annotations": [
                {
                    "image_id": image,
                    "category_id": names.index(name),
                    "bbox": [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height],
                    "iscrowd": int(name == crowd),
                }
                for image, boxes in known.items()
                for name, some in boxes.items()
                for x1, y1, x2, y2 in some
            ],
        }
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(document))
        return judge(reader, read_truth(path), job)

    return run


def give_evidence(database: Database, evidence: str = "score") -> None:
    """As the worker will have done it."""
    with database.write() as connection:
        connection.execute(text(f"UPDATE boxes SET evidence = {evidence}"))


def told(judged: Judged) -> dict[str, int]:
    return {why: count for why, count in judged.left_out.items() if count}


def test_box_is_right_where_a_true_one_of_its_category_is_half_the_same(
    look: Look, shelve: Shelve, database: Database
) -> None:
    half, less = (0.25, 0.0, 0.75, 1.0), (0.0, 0.0, 0.25, 1.0)
    shelve(
        "job",
        Picture("file:///p/1.jpg", [Thing("a dog", [LEFT, half, less, RIGHT], 0.75)]),
        Picture("file:///p/2.jpg", [Thing("two cats", [RIGHT], 0.25), Thing("a dog", [RIGHT], None)]),
        Picture("file:///p/3.jpg", [Thing("a dog", [LEFT], 0.5, valid=False), Thing("a hat")]),
    )
    give_evidence(database, "0.5")
    judged = look({"1.jpg": {"dog": [LEFT]}, "2.jpg": {"cat": [RIGHT]}, "3.jpg": {"dog": [LEFT]}})
    boxes = judged.boxes[NULL]
    found = Counter((score, right) for score, right in zip(boxes.score, boxes.right, strict=True) if score == score)
    assert found == {(0.75, 1): 2, (0.75, 0): 2, (0.25, 1): 1, (0.5, 0): 1}  # less is half of LEFT: an IoU of 0.5
    assert [right for score, right in zip(boxes.score, boxes.right, strict=True) if score != score] == [0]
    assert (judged.images, told(judged)) == (3, {"boxes of phrases that are no category": 1})


def test_images_are_found_by_the_end_of_their_path_and_what_is_not_sure_is_told(
    look: Look, shelve: Shelve, database: Database
) -> None:
    things = [Thing("a dog", [LEFT])]
    shelve(
        "job",
        Picture("file:///p/a%20b/1.jpg", things),
        Picture("s3://bucket/p/11.jpg", things),
        Picture("s3://bucket/x/2.jpg", things),
        Picture("s3://bucket/y/2.jpg", things),
        Picture("file:///p/3.jpg", things, size=(480, 640)),
        Picture("file:///p/half/4.jpg", things, size=(320, 240)),
        Picture("file:///p/unknown.jpg", things),
    )
    give_evidence(database)
    dog = {"dog": [LEFT]}
    judged = look({"a b/1.jpg": dog, "1.jpg": dog, "2.jpg": dog, "3.jpg": dog, "4.jpg": dog, "5.jpg": dog})
    assert judged.images == 2
    assert list(judged.boxes[NULL].right) == [1, 1]
    assert told(judged) == {
        "images of another shape than in the truth": 1,
        "images of the truth whose name several pictures have": 1,
    }


def test_copies_of_one_picture_count_once_however_many_jobs_and_names_show_them(
    look: Look, shelve: Shelve, database: Database
) -> None:
    picture = Picture("file:///p/1.jpg", [Thing("a dog", [LEFT])], content="same")
    copy = Picture("file:///q/1.jpg", [Thing("a dog", [LEFT])], content="same")
    shelve("job", picture, copy)
    shelve("again", picture, task=("brief", "detailed"))
    give_evidence(database)
    judged = look({"1.jpg": {"dog": [LEFT]}})
    assert {identity.task: len(boxes.right) for identity, boxes in judged.boxes.items()} == {"brief": 1, "detailed": 1}


def test_job_has_its_own_boxes_judged_alone(look: Look, shelve: Shelve, database: Database) -> None:
    shelve("one", Picture("file:///p/1.jpg", [Thing("a dog", [LEFT])]))
    shelve("two", Picture("file:///p/2.jpg", [Thing("a dog", [LEFT])]))
    give_evidence(database)
    known: Known = {"1.jpg": {"dog": [LEFT]}, "2.jpg": {}}
    assert list(look(known, job="one").boxes[NULL].right) == [1]
    assert list(look(known, job="two").boxes[NULL].right) == [0]
    assert sorted(look(known).boxes[NULL].right) == [0, 1]
    with pytest.raises(UsageError, match="there is no job 'three'"):
        look(known, job="three")


def test_categories_that_are_a_crowd_in_an_image_do_not_count_there(
    look: Look, shelve: Shelve, database: Database
) -> None:
    shelve("job", Picture("file:///p/1.jpg", [Thing("a dog", [LEFT]), Thing("a cat", [RIGHT])]))
    give_evidence(database)
    judged = look({"1.jpg": {"dog": [LEFT], "cat": [RIGHT]}}, crowd="dog")
    assert list(judged.boxes[NULL].right) == [1]
    assert told(judged) == {"boxes of categories that are a crowd in their image": 1}


def test_rows_from_before_there_was_evidence_are_left_out_and_told(look: Look, shelve: Shelve) -> None:
    shelve("job", Picture("file:///p/1.jpg", [Thing("a dog", [LEFT])]))
    judged = look({"1.jpg": {"dog": [LEFT]}})
    assert not judged.boxes
    assert told(judged) == {"boxes without evidence, made before there was any": 1}


def test_boxes_come_page_by_page_and_none_is_lost(
    look: Look, shelve: Shelve, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", 3)
    monkeypatch.setattr(module, "JUDGED_AT_ONCE", 2)
    shelve("job", *(Picture(f"file:///p/{n}.jpg", [Thing("a dog", [LEFT])]) for n in range(10)))
    give_evidence(database)
    judged = look({f"{n}.jpg": {"dog": [LEFT]} for n in range(0, 10, 2)})
    assert (judged.images, len(judged.boxes[NULL].right)) == (5, 5)


def test_trust_in_the_view_is_that_of_the_map_that_was_fitted(
    look: Look, shelve: Shelve, database: Database, reader: Reader
) -> None:
    """Given boxes of which those with more evidence are right more often, and others of another task."""
    rng = random.Random(7)
    pictures, known = [], {}
    for number in range(200):
        score = rng.randrange(1, 64) / 64
        pictures.append(Picture(f"file:///p/{number}.jpg", [Thing("a dog", [LEFT], score)]))
        known[f"{number}.jpg"] = {"dog": [LEFT if rng.random() < score**2 else RIGHT]}
    shelve("job", *pictures, task=("brief", "detailed"))
    give_evidence(database)
    judged = look(known)
    assert set(judged.boxes) == {NULL, NULL._replace(task="detailed")}
    fitted = calibration_of(NULL, judged.boxes[NULL], "sha")
    put_calibrations(database, [fitted])
    rows = reader.select("SELECT task, evidence, trust FROM groundings").rows
    for task, evidence, trust in rows:
        assert trust == pytest.approx(value_at(fitted.points, evidence) if task == "brief" else evidence)
    assert len(rows) == 400
    assert fitted.report.trust_ece < fitted.report.evidence_ece


def boxes_of(rng: random.Random, count: int) -> Boxes:
    boxes = Boxes()
    for _ in range(count):
        evidence = rng.random()
        boxes.add(evidence, None, rng.random() < evidence, rng.randrange(FOLDS))
    return boxes


def test_no_box_is_judged_by_a_map_that_has_seen_its_image() -> None:
    """When what is right in one fold is turned round, then the trust in its own boxes stays as it was."""
    boxes = boxes_of(random.Random(3), 600)
    order = sorted(range(600), key=boxes.evidence.__getitem__)
    before = crossed(boxes, order)
    for at in range(600):
        if boxes.fold[at] == 2:
            boxes.right[at] = 1 - boxes.right[at]
    after = crossed(boxes, order)
    same = [after[at] == before[at] for at in range(600)]
    assert all(same[at] for at in range(600) if boxes.fold[at] == 2)
    assert not any(same[at] for at in range(600) if boxes.fold[at] != 2)


def test_boxes_of_one_picture_are_in_one_fold(look: Look, shelve: Shelve, database: Database) -> None:
    shelve("job", *(Picture(f"file:///p/{n}.jpg", [Thing("a dog", [LEFT] * 3)]) for n in range(40)))
    give_evidence(database)
    fold = look({f"{n}.jpg": {"dog": [LEFT]} for n in range(40)}).boxes[NULL].fold
    assert all(fold[at] == fold[at + 1] == fold[at + 2] for at in range(0, 120, 3))
    assert len(set(fold)) == FOLDS


def test_stored_map_is_fitted_on_all_boxes() -> None:
    boxes = boxes_of(random.Random(4), 300)
    judged = sorted(zip(boxes.evidence, boxes.right, strict=True))
    calibration = calibration_of(NULL, boxes, "sha")
    assert calibration.points == tuple(curve_of(judged))
    assert (calibration.report.boxes, calibration.report.scored, calibration.report.score_auroc) == (300, 0, None)


@pytest.mark.parametrize(
    ("count", "right", "enough"), [(100, 10, True), (100, 90, True), (99, 50, False), (100, 9, False), (100, 91, False)]
)
def test_too_few_boxes_have_no_map(count: int, right: int, enough: bool) -> None:
    boxes = Boxes()
    for number in range(count):
        boxes.add(0.5, 0.5, number < right, 0)
    assert (too_few(boxes) == "") is enough
