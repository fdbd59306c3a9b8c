# ruff: noqa: T201
"""How well `trust` tells right boxes from wrong ones: the demo model on drawings that it has not seen.

    python -m benchmarks.trust --seed 9002 [--drawings 1000] [--keep FOLDER]

Each drawing is captioned, and asked for every thing that is on it and for two that are not, half of which share their
colour or shape with something there. A box is right with an IoU of 0.5 or more with a thing of that name. All of it goes
through the commands: `annotate` with and without --verify, `calibrate`, and SQL. Beside it, whether the expected boxes
(the mean of the location distribution around the chosen cell) lie nearer to the truth than those of the grid.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalog.calibration.measures import auroc, calibration_error, grouped, reliability
from catalog.reader import open_reader
from schemas.grounding import iou

DEMO_MODEL = Path(__file__).parents[1] / "examples/demo_model"
ABSENT = 2
"""Things that each drawing is asked for though they are not there."""
MANNERS = {"plain": [], "phrases": ["--verify", "--no-mirror"], "mirror": ["--verify"]}
"""Jobs, by how their boxes are verified."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, required=True, help="one that neither training nor a choice has used")
    options.add_argument("--drawings", type=int, default=1000)
    options.add_argument("--keep", type=Path, help="a folder for drawings, truth and database, to look at them")
    options.add_argument("--save", type=Path, help="a file for the calibrations, as the demo model's folder has it")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = given.keep or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder, given.seed, given.drawings)
        db = f"sqlite:///{folder / 'trust.db'}"
        for name, flags in MANNERS.items():
            prompts = ["--task", "brief", "--phrase", "column:phrase"]
            kosmograph("annotate", f"@{folder / 'asked.jsonl'}", "--model", "demo", "--job", name, *prompts, *flags, db=db)
        print(f"{given.drawings} drawings of seed {given.seed}")
        tell(*judged(db, json.loads((folder / "truth.json").read_text())))
        save = ["--save", str(given.save)] if given.save else []
        print(kosmograph("calibrate", "--truth", str(folder / "truth.json"), *save, db=db))


def draw(folder: Path, seed: int, count: int) -> None:
    """Drawings, what is asked of each (asked.jsonl), and where everything is (truth.json, as COCO has it)."""
    sys.path.insert(0, str(DEMO_MODEL))
    from drawing import COLOURS, SHAPES, draw_scene, random_size
    from language import absent_name

    rng = np.random.default_rng(seed)
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    images, annotations, asked = [], [], []
    for number in range(count):
        image, things = draw_scene(rng, random_size(rng, 160, 640), int(rng.integers(1, 5)))
        file = f"{number:05}.png"
        image.save(folder / file)
        images.append({"id": number, "file_name": file, "width": image.width, "height": image.height})
        for thing in things:
            x1, y1, x2, y2 = thing.box
            box = [x1 * image.width, y1 * image.height, (x2 - x1) * image.width, (y2 - y1) * image.height]
            about = {"image_id": number, "category_id": names.index(thing.name), "bbox": box, "iscrowd": 0}
            annotations.append({"id": len(annotations), "area": box[2] * box[3], **about})
        absent = [absent_name(rng, things) for _ in range(ABSENT)]
        phrases = [f"the {name}" for name in dict.fromkeys([*(thing.name for thing in things), *absent])]
        asked.append(json.dumps({"uri": file, "phrase": phrases}))
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "asked.jsonl").write_text("\n".join(asked) + "\n")


def kosmograph(*arguments: str, db: str) -> str:
    """What a command prints. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "kosmograph", *arguments, "--db", db]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


Judged = dict[tuple[str, str], list[dict[str, Any]]]


def judged(db: str, truth: dict[str, Any]) -> tuple[Judged, list[tuple[float, float]]]:
    """The boxes of each job and task, each with whether it is right; of the right ones IoU on the grid and expected."""
    names = {one["id"]: one["name"] for one in truth["categories"]}
    sizes = {one["id"]: (one["width"], one["height"]) for one in truth["images"]}
    files = {one["file_name"]: one["id"] for one in truth["images"]}
    true: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for one in truth["annotations"]:
        (width, height), (x, y, w, h) = sizes[one["image_id"]], one["bbox"]
        box = (x / width, y / height, (x + w) / width, (y + h) / height)
        true[one["image_id"], names[one["category_id"]]].append(box)
    found: Judged = defaultdict(list)
    overlaps: list[tuple[float, float]] = []
    with open_reader(db) as reader:
        selected = reader.select("SELECT * FROM groundings WHERE score IS NOT NULL")
        for values in selected.rows:
            row = dict(zip(selected.columns, values, strict=True))
            boxes = true[files[row["uri"].rpartition("/")[2]], row["phrase_norm"]]
            grid, expected = (
                max(((iou(tuple(row[name] for name in edges), box), box) for box in boxes), default=(0.0, None))
                for edges in (("x1", "y1", "x2", "y2"), tuple(f"expected_{edge}" for edge in ("x1", "y1", "x2", "y2")))
            )
            row["right"] = grid[0] >= 0.5
            found[row["job"], row["task"]].append(row)
            if row["job"] == "plain" and row["task"] == "brief" and row["right"]:
                overlaps.append((grid[0], expected[0]))
    return found, overlaps


def tell(found: Judged, overlaps: Sequence[tuple[float, float]]) -> None:
    """A table of how well score, evidence and trust tell right from wrong."""
    print(f"{'job':8} {'task':7} {'boxes':>6} {'right':>6}   AUROC of score, evidence, trust   ECE of evidence, trust")
    for name in MANNERS:
        rows = {task: found[name, task] for task in ("brief", "phrase")}
        for task, some in [*rows.items(), ("both", [row for part in rows.values() for row in part])]:
            right = [row["right"] for row in some]
            groups = {key: grouped([row[key] for row in some], right) for key in ("score", "evidence", "trust")}
            told = "  ".join(f"{auroc(group) or 0:.3f}" for group in groups.values())
            errors = "  ".join(f"{calibration_error(reliability(groups[key])):.3f}" for key in ("evidence", "trust"))
            print(f"{name:8} {task:7} {len(some):6} {sum(right):6}   {told:30}   {errors}")
    grid, expected = (float(np.mean(side)) for side in zip(*overlaps, strict=True))
    print(f"mean IoU of {len(overlaps)} right boxes of captions: on the grid {grid:.4f}, expected {expected:.4f}")


if __name__ == "__main__":
    main()
