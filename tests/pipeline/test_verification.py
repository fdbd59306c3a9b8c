"""--verify from the command line to SQL: the demo model's boxes, and what it says when it is asked about them again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Kosmograph

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
PARTS = ("presence", "agreement", "mirror_agreement", "naming")


@pytest.fixture(scope="module")
def verified(filled_once: Callable[[str, Callable[[Kosmograph], None]], Kosmograph]) -> Kosmograph:
    return filled_once("verified", three_jobs)


def three_jobs(kosmograph: Kosmograph) -> None:
    """Over two drawings: not verified, without the mirrored image, and with it. Captions, and a phrase."""
    for job, flags in (("plain", ()), ("phrases", ("--verify", "--no-mirror")), ("mirror", ("--verify",))):
        asked = ("--task", "brief", "--phrase", "the green circle", "--plain-question", "How many?")
        run = kosmograph.annotate(
            str(EXAMPLES / "scan.tiff"), str(EXAMPLES / "medal.png"), "--model", "demo", "--job", job, *asked, *flags
        )
        assert run.code == 0, run.err


def boxes(kosmograph: Kosmograph, job: str, task: str) -> list[dict[str, Any]]:
    found = kosmograph.sql(f"SELECT * FROM groundings WHERE job = '{job}' AND task = '{task}' ORDER BY uri, entity")
    assert found
    return found


def test_job_that_does_not_verify_has_scores_edges_and_trust_but_no_checks(verified: Kosmograph) -> None:
    for box in boxes(verified, "plain", "brief"):
        assert [box[part] for part in PARTS] == [None] * 4
        assert 0 < box["score"] < 1
        assert 0 < box["trust"] <= 1
        assert (box["plausibility"], box["doubts"]) == (1, None)
        assert all(abs(box[f"expected_{edge}"] - box[edge]) < 0.1 for edge in ("x1", "y1", "x2", "y2"))
        assert all(0 < box[f"sigma_{edge}"] < 100 for edge in ("px1", "py1", "px2", "py2"))


def test_each_part_is_there_that_the_manner_asks_for(verified: Kosmograph) -> None:
    for box in boxes(verified, "mirror", "brief"):
        assert all(0 <= box[part] <= 1 for part in PARTS)
    for box in boxes(verified, "phrases", "brief"):
        assert [part for part in PARTS if box[part] is None] == ["mirror_agreement"]


def test_phrase_prompt_is_not_asked_a_second_time_and_its_presence_is_its_own(verified: Kosmograph) -> None:
    (box,) = boxes(verified, "mirror", "phrase")
    assert (box["phrase"], box["agreement"]) == ("the green circle", None)
    assert box["presence"] > 0.5
    assert box["mirror_agreement"] > 0.5
    assert box["naming"] > 0.5


def test_each_caption_knows_the_models_yes_bias_and_what_it_was_asked_for(verified: Kosmograph) -> None:
    for row in verified.sql("SELECT * FROM captions WHERE job = 'mirror' AND task = 'brief'"):
        assert row["absent_phrase"].removeprefix("a ").removeprefix("an ") not in row["caption"]
        assert 0 <= row["yes_bias"] <= 1
    asked = verified.sql("SELECT DISTINCT absent_phrase FROM captions WHERE job = 'plain' OR task = 'plain_question'")
    assert asked == [{"absent_phrase": None}]


def test_same_boxes_come_of_all_manners(verified: Kosmograph) -> None:
    """Verification looks, and changes nothing."""
    corners = ("x1", "y1", "x2", "y2", "score")
    plain = boxes(verified, "plain", "brief")
    for other in (boxes(verified, "phrases", "brief"), boxes(verified, "mirror", "brief")):
        assert [(box["uri"], box["phrase"]) for box in other] == [(box["uri"], box["phrase"]) for box in plain]
        for box, same in zip(plain, other, strict=True):
            assert [box[name] for name in corners] == pytest.approx([same[name] for name in corners], abs=1e-5)


def test_second_run_of_a_verifying_job_does_nothing_again(verified: Kosmograph) -> None:
    again = verified.annotate(
        *(str(EXAMPLES / name) for name in ("scan.tiff", "medal.png")), "--model", "demo", "--job", "again", "--verify"
    )
    assert "2 images, 0 annotated, 2 reused, 0 failed" in again.out
