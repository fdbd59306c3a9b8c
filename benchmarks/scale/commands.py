"""Kosmograph's commands as a person types them, and what the kernel says that they cost."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    wall_s: float
    cpu_s: float
    """User and system, of its children as well."""
    peak_mb: float
    """Resident, of its largest process."""


def start(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """A command that runs."""
    command = [sys.executable, "-P", "-m", "kosmograph", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | variables)


def run(*arguments: str, **variables: str) -> Ran:
    """A command that has ended with exit code 0; else the benchmark ends."""
    began = time.monotonic()
    done = finish(start(*arguments, **variables), began)
    if done.code != 0:
        sys.exit(f"kosmograph {arguments[0]} ended with {done.code}: {done.out}")
    return done


def finish(process: "subprocess.Popen[str]", began: float) -> Ran:
    """Wait for a command's end. `began` is when it was started, by the monotonic clock."""
    assert process.stdout
    try:
        with process.stdout as said:
            out = said.read()
    except BaseException:
        process.terminate()
        raise
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = used.ru_utime + used.ru_stime
    return Ran(process.returncode, out, time.monotonic() - began, cpu_s, used.ru_maxrss / 1024)


def progress(db: str) -> list[dict[str, Any]]:
    """What `status` says of each job."""
    return list(json.loads(run("status", "--json", "--db", db).out))
