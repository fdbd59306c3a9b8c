"""No child outlives us, however we end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kosmograph import children
from kosmograph.children import Child, python

SLEEPER = "import sys, time; print('here', flush=True); time.sleep(600)"
LISTENER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("here", flush=True)
time.sleep(600)
"""
PATIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: None)
print("here", flush=True)
time.sleep(1.5)
sys.exit(6)
"""
STORM = """
import os, signal, sys, time
end = time.monotonic() + 1
while time.monotonic() < end:
    os.kill(int(sys.argv[1]), signal.SIGTERM)
"""


def command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def grandchild(child: Child) -> psutil.Process:
    (process,) = psutil.Process(child._keeper.pid).children()
    return process


def running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def start(tmp_path: Path, wait_for: Callable[..., Any]):
    """A child that has begun."""
    started: list[Child] = []

    def start(code: str) -> Child:
        log = tmp_path / f"{len(started)}.log"
        started.append(Child(command(code), log))
        wait_for(lambda: "here" in log.read_text())
        return started[-1]

    yield start
    for child in started:
        child._keeper.kill()
        child._let_go()
        child._keeper.wait()


@pytest.mark.parametrize(("last_act", "code"), [("pass", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_exit_code_is_the_commands(
    start: Callable[..., Child], wait_for: Callable[..., Any], last_act: str, code: int
) -> None:
    child = start(f"import os, sys; print('here', flush=True); {last_act}")
    wait_for(lambda: child.code is not None)
    assert child.code == code


def test_stop_passes_sigterm_on(start: Callable[..., Child]) -> None:
    assert start(LISTENER).stop() == 5


def test_stop_of_a_child_that_has_ended_says_how(start: Callable[..., Child], wait_for: Callable[..., Any]) -> None:
    child = start("print('here')")
    wait_for(lambda: child.code is not None)
    assert child.stop() == 0


def test_child_leaves_when_its_parent_is_killed(tmp_path: Path, wait_for: Callable[..., Any]) -> None:
    log = tmp_path / "log"
    parent = subprocess.Popen(
        command(
            "import sys, time; from pathlib import Path; from kosmograph.children import Child\n"
            f"child = Child([sys.executable, '-c', {SLEEPER!r}], Path({str(log)!r})); time.sleep(600)"
        )
    )
    wait_for(lambda: log.exists() and "here" in log.read_text())
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 2
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(running(one) for one in family))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a child of its parent's death")
def test_command_leaves_when_its_keeper_is_killed(start: Callable[..., Child], wait_for: Callable[..., Any]) -> None:
    child = start(SLEEPER)
    process = grandchild(child)
    child._keeper.kill()
    wait_for(lambda: not running(process))


def test_ctrl_c_on_the_terminal_does_not_reach_a_child(start: Callable[..., Child]) -> None:
    child = start(SLEEPER)
    assert os.getpgid(child._keeper.pid) != os.getpgid(0)
    assert os.getsid(grandchild(child).pid) == child._keeper.pid


def test_last_words_are_what_a_command_of_ours_says_last(
    start: Callable[..., Child], wait_for: Callable[..., Any]
) -> None:
    child = start("print('here'); print('kosmograph: no model; get one'); print('noise at exit')")
    wait_for(lambda: child.code is not None)
    assert child.last_words() == "no model; get one"


def test_modules_of_the_same_name_in_the_users_folder_are_not_taken_for_ours(tmp_path: Path) -> None:
    for name in ("worker", "schemas", "producer", "catalog"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    for line in (python("kosmograph"), [sys.executable, "-m", "kosmograph"]):
        done = subprocess.run([*line, "status"], cwd=tmp_path, capture_output=True, text=True)
        assert "there is no database" in done.stderr


def test_sigterm_before_the_command_has_begun_is_passed_on(tmp_path: Path) -> None:
    """Whenever it comes, nothing is left behind."""
    for delay_s in (0.0, 0.02, 0.05, 0.1):
        child = Child(command(SLEEPER), tmp_path / "log")
        with contextlib.suppress(subprocess.TimeoutExpired):
            child._keeper.wait(delay_s)
        child._keeper.send_signal(signal.SIGTERM)
        assert child._keeper.wait(10) in (-signal.SIGTERM, 128 + signal.SIGTERM)
        child._let_go()
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == command(SLEEPER)]


def test_signals_in_a_row_are_all_passed_on(start: Callable[..., Child]) -> None:
    """However close they come: a handler that another one interrupts must not wait for it."""
    patient = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: None); print('here', flush=True)\n"
    child = start(patient + "time.sleep(1.5); sys.exit(6)")
    storm = (
        "import os, sys, time; end = time.monotonic() + 1\nwhile time.monotonic() < end: os.kill(int(sys.argv[1]), 15)"
    )
    subprocess.run([*command(storm), str(child._keeper.pid)], check=True)
    assert child._keeper.wait(20) == 6


def test_keeper_that_does_nothing_any_more_is_ended_by_force(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STOP_S", 0.2)
    child = start(SLEEPER)
    process = grandchild(child)
    child._keeper.send_signal(signal.SIGSTOP)
    assert child.stop() == -signal.SIGKILL
    assert not running(process)
