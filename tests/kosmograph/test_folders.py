"""The folders of runs: made, removed, and swept up after those that were killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kosmograph.folders import LOCK, run_folder, sweep
from schemas.errors import SetupError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def grow_old(folder: Path) -> None:
    os.utime(folder / LOCK, (1, 1))


def test_folder_is_gone_with_its_run(temporary: Path) -> None:
    with run_folder() as folder:
        assert folder.parent == temporary
    with pytest.raises(RuntimeError), run_folder():
        raise RuntimeError
    assert list(temporary.iterdir()) == []


def test_logs_of_a_run_that_could_not_work_stay_for_a_day() -> None:
    with pytest.raises(SetupError), run_folder() as folder:
        raise SetupError("no")
    sweep()
    assert folder.exists()
    grow_old(folder)
    sweep()
    assert not folder.exists()


def test_folder_of_a_killed_run_is_removed_and_that_of_a_long_one_is_not(temporary: Path) -> None:
    code = (
        "import sys\nfrom kosmograph.folders import run_folder\n"
        "with run_folder() as folder: print(folder, flush=True); sys.stdin.read()"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    folder = Path(run.stdout.readline().strip())
    grow_old(folder)
    sweep()
    assert folder.exists()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    sweep()
    assert not folder.exists()


def test_what_is_not_ours_is_left_alone(temporary: Path) -> None:
    other = temporary / "kosmograph-notes"
    other.mkdir()
    sweep(kept_s=-1)
    assert other.exists()
