"""A worker whose model is not what it was, as the person sees it who started the run."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.pipeline.conftest import Kosmograph


def test_drift_ends_annotate_with_the_difference_and_new_canary_goes_on(
    kosmograph: Kosmograph, many: Callable[[int], Path]
) -> None:
    """Given a database in which another runtime said something else, then not one image is annotated beside its own."""
    run = kosmograph.annotate(str(many(4)), "--job", "night")
    assert run.code == 0, run.err
    with closing(sqlite3.connect(kosmograph.folder / "kosmograph.db")) as connection, connection:
        connection.execute(
            "UPDATE canaries SET token_ids = '[7, 8, 2]', raw_text = '<grounding> An image of a snowdrift.',"
            " runtime = 'cuda bfloat16' WHERE number = 3"
        )

    run = kosmograph.annotate(str(many(8)), "--job", "night")
    assert run.code == 1
    assert "4 annotated" in run.out
    (line,) = [line for line in run.err.splitlines() if line.startswith("kosmograph: ")]
    assert "the job is paused: on worker " in line
    assert 'canary 3 (brief) differs: "<grounding> An image of<phrase> a snowman' in line
    assert 'was "<grounding> An image of a snowdrift." (cuda bfloat16); mend that worker' in line
    assert "kosmograph resume night --new-canary; then: kosmograph resume night" in line
    assert kosmograph.value("SELECT COUNT(*) FROM captions") == 4
    assert kosmograph.value("SELECT SUM(crashes) FROM chunks") == 0

    shown = kosmograph.here("status", "night")
    assert "night is paused: on worker " in shown.out
    assert "resume night --new-canary" in shown.out
    assert json.loads(kosmograph.here("status", "night", "--json").out)[0]["reason"] in line

    assert kosmograph.here("resume", "night", "--new-canary").code == 0
    run = kosmograph.annotate(str(many(8)), "--job", "night")
    assert run.code == 0, run.err
    assert kosmograph.value("SELECT COUNT(*) FROM captions") == 8
