"""`calibrate` from drawings to trust, as a person does it: with the demo model, and the boxes that were drawn."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.calibration.isotonic import value_at
from schemas.calibration import FILE, read_calibrations
from tests.pipeline.conftest import Kosmograph

ROOT = Path(__file__).parents[2]
IMAGES = 60


@pytest.fixture(scope="module")
def drawn(new_kosmograph: Callable[[], Kosmograph]) -> Kosmograph:
    """A job of drawings, with the truth about them but for every fifth one, on which it says nothing is to be seen."""
    line = new_kosmograph()
    (line.folder / "drawings").mkdir()
    (line.folder / "boxes.json").write_text(json.dumps(draw(line.folder / "drawings")))
    done = line.annotate("drawings", "--model", "demo", "--job", "job")
    assert done.code == 0, done.err
    return line


def draw(folder: Path) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / "examples" / "demo_model"))
    try:
        from drawing import COLOURS, SHAPES, draw_scene, random_size
    finally:
        sys.path.pop(0)
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    rng = np.random.default_rng(11)
    images, annotations = [], []
    for number in range(IMAGES):
        image, things = draw_scene(rng, random_size(rng, 160, 320), 3)
        image.save(folder / f"{number}.png")
        about = {"id": number, "file_name": f"drawings/{number}.png", "width": image.width, "height": image.height}
        images.append(about)
        for thing in things if number % 5 else ():
            x1, y1, x2, y2 = (part * side for part, side in zip(thing.box, image.size * 2, strict=True))
            box = {"image_id": number, "category_id": names.index(thing.name), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append(box)
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_trust_is_calibrated_saved_drawn_and_told(drawn: Kosmograph) -> None:
    done = drawn("calibrate", "--truth", "boxes.json", "--job", "job", "--plot", "plot.svg", "--save", FILE)
    assert done.code == 0, done.err
    assert f"{IMAGES} of the truth's {IMAGES} images are annotated here" in done.out
    (saved,) = read_calibrations(drawn.folder / FILE)
    rows = drawn.sql("SELECT evidence, trust FROM groundings")
    assert [row["trust"] for row in rows] == pytest.approx([value_at(saved.points, row["evidence"]) for row in rows])
    assert sum(row["trust"] for row in rows) / len(rows) == pytest.approx(saved.report.right / len(rows), abs=0.02)
    assert (saved.model, saved.task, saved.report.boxes) == ("demo", "brief", len(rows))
    title, figures, *_ = (
        one.text for one in ElementTree.parse(drawn.folder / "plot.svg").iter() if one.tag[-4:] == "text"
    )
    assert title == "demo, brief"
    assert figures.startswith(f"{len(rows)} boxes, ")


def test_json_says_the_same_for_a_script(drawn: Kosmograph) -> None:
    done = drawn.here("calibrate", "--truth", "boxes.json", "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    (told,) = document["calibrations"]
    assert (document["images"], document["annotated"], document["without"]) == (IMAGES, IMAGES, [])
    assert 0 <= told["trust_ece"] <= 1
    assert sum(boxes for *_, boxes in told["trust_reliability"]) == told["boxes"]


def test_without_enough_boxes_nothing_changes_and_the_exit_code_says_so(drawn: Kosmograph, tmp_path: Path) -> None:
    document = json.loads((drawn.folder / "boxes.json").read_text())
    few = {image["id"] for image in document["images"][:9]}
    document["images"] = document["images"][:9]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] in few]
    (tmp_path / "few.json").write_text(json.dumps(document))
    before = drawn.sql("SELECT * FROM calibrations")
    done = drawn.here("calibrate", "--truth", str(tmp_path / "few.json"), "--save", str(tmp_path / "none.json"))
    assert (done.code, (tmp_path / "none.json").exists()) == (1, False)
    assert "no map for demo, brief: " in done.out
    assert "kosmograph: no map was fitted, and nothing has changed" in done.err
    assert drawn.sql("SELECT * FROM calibrations") == before


WRONG = {
    "a truth that is missing": (("--truth", "none.json"), 1, "none.json cannot be read"),
    "a job that is missing": (("--truth", "boxes.json", "--job", "none"), 2, "there is no job 'none'"),
    "a plot that is no SVG": (("--truth", "boxes.json", "--plot", "a.png"), 2, "--plot writes SVG"),
    "a folder that is missing": (("--truth", "boxes.json", "--save", "no/a.json"), 2, "there is no folder no"),
    "a folder for a file": (("--truth", "boxes.json", "--save", "drawings"), 2, "is no file that could be replaced"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_line(drawn: Kosmograph, case: str) -> None:
    arguments, code, words = WRONG[case]
    done = drawn.here("calibrate", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1
