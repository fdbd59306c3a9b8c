"""`doctor` says what does not work, and its exit code too."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.pipeline.conftest import Run
from worker.revision import resolve


def test_doctor_ends_with_1_when_a_part_of_the_model_is_bad(cli_here: Callable[..., Run], tmp_path: Path) -> None:
    demo = resolve("demo").path
    assert demo
    folder = Path(shutil.copytree(demo, tmp_path / "kosmos"))
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<patch_index_0007>", "<patch_index_XXXX>"))
    run = cli_here("doctor", "--model", str(folder))
    assert run.code == 1
    assert "BAD   tokens" in run.out
    assert "ok    config" in run.out


def test_doctor_proves_the_model_in_the_dtype_that_is_asked_for(cli_here: Callable[..., Run]) -> None:
    run = cli_here("doctor", "--model", "demo", "--dtype", "float32")
    assert run.code == 0
    assert ", float32" in next(line for line in run.out.splitlines() if line.startswith("ok    model"))
    assert run.out.splitlines()[-1].startswith("ok    caption")
