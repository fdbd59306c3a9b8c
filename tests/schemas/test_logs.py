"""Who reads the log: people on a terminal, programs elsewhere."""

import json
import os
import pty
import subprocess
import sys

CODE = """
from threading import Thread
import logging, structlog
from structlog.contextvars import bound_contextvars
from schemas.logs import configure_logs
from schemas.settings import Settings

configure_logs(Settings(), worker="w1")

def work():
    with bound_contextvars(job="night", chunk=7, attempt=2):
        structlog.get_logger().info("chunk lost", why="ö")
        logging.getLogger("elsewhere").warning("said %s", "so")

thread = Thread(target=work)
thread.start()
thread.join()
"""
HERE = {"worker": "w1", "job": "night", "chunk": 7, "attempt": 2}


def test_without_a_terminal_each_line_is_json_with_what_it_is_about() -> None:
    """In any thread, and also where a library speaks."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    ours, theirs = map(json.loads, done.stderr.splitlines())
    assert ours.items() >= (HERE | {"event": "chunk lost", "why": "ö", "level": "info"}).items()
    assert theirs.items() >= (HERE | {"event": "said so", "level": "warning"}).items()


def test_addresses_that_a_library_warns_of_are_not_logged() -> None:
    """A webhook's path is its secret, and urllib3 names it where the answer's headers are odd."""
    code = CODE.replace('"elsewhere"', '"urllib3.connection"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["event"] == "chunk lost"


def test_on_a_terminal_the_lines_are_for_people() -> None:
    terminal, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", CODE], stderr=theirs, check=True)
    os.close(theirs)
    text = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "chunk lost" in text
    assert '"event"' not in text
    assert "night" in text
