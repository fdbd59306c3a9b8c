"""Help, `status` and `sql` start at once."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "celery", "kombu", "boto3", "botocore", "pyarrow", "numpy", "PIL", "sqlalchemy"}
COMMANDS = [["--help"], ["status"], ["sql", "SELECT 1"], ["failures", "--help"]]


@pytest.fixture
def folder(tmp_path: Path, sqlite_template: Path) -> Path:
    (tmp_path / "kosmograph.db").write_bytes(sqlite_template.read_bytes())
    return tmp_path


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_light_command_imports_nothing_heavy(folder: Path, arguments: list[str]) -> None:
    code = """
import atexit, sys
from kosmograph.__main__ import main
atexit.register(lambda: print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr))
main()
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stderr.splitlines()[-1].split())
