"""Every task from the command line, on the demo model: from flags, from files, and from the columns of a manifest."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline.conftest import Kosmograph, Run

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
SCAN = str(EXAMPLES / "scan.tiff")
"""420×300 pixels: a green circle, a blue square and a purple circle from left to right."""
GREEN, PURPLE = (46, 145, 164, 286), (295, 145, 387, 239)
ROWS = """uri,what,where,asked
scan.tiff,"[""the green circle"", ""the purple circle""]","[[46,145,164,286],[0.7,0.48,0.92,0.8]]",Which shape is blue?
medal.png,the blue ring,"0,0,1,1",
scan.tiff,the green circle,"9,9,9,9",Which shape is blue?
later.png,the blue ring,"0,0,1,1",How many shapes are there?
"""
COLUMNS = ("--task", "brief", "--phrase", "column:what", "--region", "column:where", "--question", "column:asked")


@dataclass(frozen=True)
class Asked:
    """A run over a manifest that asks something else of each image, and the command for it."""

    kosmograph: Kosmograph
    command: tuple[str, ...]
    run: Run


@pytest.fixture(scope="module")
def asked(new_kosmograph: Callable[[], Kosmograph]) -> Asked:
    kosmograph = new_kosmograph()
    for name in ("scan.tiff", "medal.png"):
        shutil.copy(EXAMPLES / name, kosmograph.folder)
    (kosmograph.folder / "list.csv").write_text(ROWS)
    command = ("@list.csv", "--model", "demo", "--job", "asked", *COLUMNS)
    return Asked(kosmograph, command, kosmograph.annotate(*command))


def test_columns_ask_each_image_for_what_its_row_brings(asked: Asked) -> None:
    assert asked.run.code == 3, asked.run.err
    rows = asked.kosmograph.sql(
        "SELECT task, input, caption FROM captions WHERE uri LIKE '%scan.tiff' ORDER BY task, input"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("brief", None, "An image of a green circle, a blue square and a purple circle."),
        ("phrase", "the green circle", "the green circle"),
        ("phrase", "the purple circle", "the purple circle"),
        ("question", "Which shape is blue?", "Question: Which shape is blue? Answer: the square."),
        ("region", "0.7,0.48,0.92,0.8", "It is a purple circle."),
        ("region", "46,145,164,286", "It is a green circle."),
    ]


def test_boxes_of_phrases_are_where_the_shapes_are(asked: Asked) -> None:
    rows = asked.kosmograph.sql(
        """SELECT phrase, px1, py1, px2, py2 FROM groundings
        WHERE uri LIKE '%scan.tiff' AND task = 'phrase' ORDER BY px1"""
    )
    found = [(row.pop("phrase"), tuple(row.values())) for row in rows]
    assert [phrase for phrase, _ in found] == ["the green circle", "the purple circle"]
    for (_, box), shape in zip(found, (GREEN, PURPLE), strict=True):
        assert all(abs(one - other) <= 20 for one, other in zip(box, shape, strict=True))


def test_value_that_makes_no_prompt_fails_alone_and_says_why(asked: Asked) -> None:
    rows = asked.kosmograph.sql("SELECT task, message FROM failures WHERE code = 'bad_input' ORDER BY task")
    assert [tuple(row.values()) for row in rows] == [
        ("question", "there is no question for this image: the cell is empty, or holds no text"),
        ("region", "the region 9,9,9,9 has no area: x1 must be less than x2, and y1 less than y2"),
    ]


def test_counters_of_rows_and_recipes_close(asked: Asked) -> None:
    (job,) = asked.kosmograph.sql("SELECT images, recipes, annotated, reused, failed, pending FROM progress")
    # two of the first row; the third says again what an earlier one said, but for its region
    assert list(job.values()) == [5, 4, 9, 5, 6, 0]


def test_same_command_again_and_another_job_compute_nothing(asked: Asked) -> None:
    before = asked.kosmograph.value("SELECT MAX(id) FROM annotations")
    assert asked.kosmograph.annotate(*asked.command).code == 3
    other = tuple("other" if word == "asked" else word for word in asked.command)
    assert asked.kosmograph.annotate(*other).code == 3
    assert asked.kosmograph.value("SELECT MAX(id) FROM annotations") == before
    (job,) = asked.kosmograph.sql("SELECT annotated, reused, failed, pending FROM progress WHERE job = 'other'")
    assert list(job.values()) == [0, 14, 6, 0]


def test_retry_asks_again_what_the_row_asked(asked: Asked) -> None:
    shutil.copy(EXAMPLES / "medal.png", asked.kosmograph.folder / "later.png")
    assert asked.kosmograph("retry", "asked", "--code", "not_found").code == 0
    asked.kosmograph.annotate(*asked.command)
    rows = asked.kosmograph.sql(
        "SELECT task, input, reused FROM captions WHERE uri LIKE '%later.png' AND job = 'asked'"
    )
    assert sorted((row["task"], row["input"] or "", row["reused"]) for row in rows) == [
        ("brief", "", 1),
        ("phrase", "the blue ring", 1),
        ("question", "How many shapes are there?", 0),
        ("region", "0,0,1,1", 1),
    ]


@pytest.fixture(scope="module")
def tried(new_kosmograph: Callable[[], Kosmograph]) -> Run:
    kosmograph = new_kosmograph()
    (kosmograph.folder / "asked.txt").write_text("How many shapes are there?\n\nWhich shape is blue?\n")
    return kosmograph.here(
        *("try", SCAN, "--model", "demo", "--json", "--task", "brief", "--task", "detailed"),
        *("--phrase", "the green circle", "--expression", "the purple circle", "--region", "0.11,0.48,0.39,0.95"),
        *("--question", "@asked.txt", "--plain-question", "Which shape is blue?", "--prompt", "An image of"),
    )


def test_each_task_can_be_tried(tried: Run) -> None:
    assert tried.code == 0, tried.err
    captions = {(one["task"], one["caption"]) for one in json.loads(tried.out)}
    circles = "a green circle, a blue square and a purple circle"
    assert captions >= {
        ("brief", f"An image of {circles}."),
        ("detailed", f"Describe this image in detail: This is a picture of {circles}."),
        ("phrase", "the green circle"),
        ("referring", "the purple circle"),
        ("region", "It is a green circle."),
        ("question", "Question: Which shape is blue? Answer: the square."),
    }
    tasks = [one["task"] for one in json.loads(tried.out)]
    assert tasks[2:] == ["phrase", "referring", "region", "question", "question", "plain_question", "custom"]


def test_prompt_that_can_never_ground_is_told_on_standard_error(tried: Run) -> None:
    (told,) = tried.err.strip().splitlines()
    assert told == (
        "kosmograph: the prompt 'An image of' will get text without boxes: for these, begin it with <grounding>"
    )


def test_raw_text_keeps_its_tags_and_cleanup_is_the_default(kosmograph: Kosmograph) -> None:
    asked = ("try", SCAN, "--model", "demo", "--expression", "the purple circle")
    raw, clean = kosmograph.here(*asked, "--raw"), kosmograph.here(*asked, "--cleanup")
    assert "</phrase><object><patch_index_" in raw.out
    assert "\n  the purple circle\n    the purple circle: (0." in clean.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("annotate", SCAN, "--phrase", "column:what"), 2, "column:what is that of a manifest, and "),
        (("try", SCAN, "--phrase", "column:what"), 2, "column:what is that of a manifest, which `annotate`"),
        (
            ("annotate", "@list.csv", "--phrase", "column:which"),
            1,
            "has no column 'which'; those that it has: uri, what",
        ),
        (("annotate", SCAN, "--region", "1,2"), 2, "--region: '1,2' is no region; one is X1,Y1,X2,Y2"),
        (("submit", SCAN, "--question", "@nothing.txt"), 2, "--question @nothing.txt: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line(kosmograph: Kosmograph, arguments: tuple[str, ...], code: int, said: str) -> None:
    (kosmograph.folder / "list.csv").write_text("uri,what\na.jpg,a dog\n")
    run = kosmograph.here(*arguments, "--model", "null")
    assert run.code == code
    (line,) = run.err.strip().splitlines()
    assert said in line


def test_whole_prompts_come_from_a_parquet_manifest_and_from_a_file(
    kosmograph: Kosmograph, many: Callable[[int], Path], tmp_path: Path
) -> None:
    many(40)
    uris, prompts = [f"photos/{number:05}.jpg" for number in range(40)], [f"<grounding>{n}" for n in range(40)]
    table: dict[str, Any] = {"uri": uris, "asked": [[prompt, "<grounding>the same"] for prompt in prompts]}
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    (kosmograph.folder / "more.txt").write_text("<grounding>from a file\n")
    run = kosmograph.annotate(f"@{tmp_path}/list.parquet", "--prompt", "column:asked", "--prompt", "@more.txt")
    assert run.code == 0, run.err
    assert not [line for line in run.err.splitlines() if "boxes" in line]
    asked = {row["prompt"] for row in kosmograph.sql("SELECT prompt FROM captions")}
    assert asked == {*prompts, "<grounding>the same", "<grounding>from a file"}
    (job,) = kosmograph.sql("SELECT images, annotated, reused, failed FROM progress")
    assert list(job.values()) == [80, 120, 40, 0]
