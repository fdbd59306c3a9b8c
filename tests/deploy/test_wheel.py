"""The wheel that images install: with everything that the repository has beside its Python files, and on its own."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "producer", "worker", "catalog", "kosmograph")
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", *PACKAGES)


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *SOURCES], cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what the Dockerfile's context holds, in a folder of its own."""
    context, built = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("wheels")
    for name in tracked():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=context, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = built.iterdir()
    return made


def test_docker_context_is_what_the_wheel_is_made_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert let_in == {*SOURCES, "constraints.txt", "deploy/requirements.py"}


def test_wheel_has_all_that_is_tracked(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {name for name in tracked() if name.startswith(PACKAGES) and "/" in name}
    assert ours - inside == {"worker/resample.c"}


def test_one_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name


def test_installed_wheel_annotates_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, which is all that pip does with it: with its demo model, migrations and templates."""
    site, work = tmp_path / "site", tmp_path / "work"
    zipfile.ZipFile(wheel).extractall(site)
    work.mkdir()
    shutil.copy(ROOT / "examples" / "images" / "scan.tiff", work)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def kosmograph(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "kosmograph", *arguments]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import kosmograph, worker; print(kosmograph.__file__, worker.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where], cwd=work, env=environment, capture_output=True, text=True
    )
    assert all(path.startswith(str(site)) for path in found.stdout.split()), found.stdout
    assert "1 pending" in kosmograph("submit", "scan.tiff", "--model", "demo", "--job", "waits")
    assert "1 annotated" in kosmograph("annotate", "scan.tiff", "--model", "null", "--job", "one")
    assert "1 images" in kosmograph("report", "one", "--out", "report.html")
