"""The walls of the house: who imports whom, and what no file says.

That the engine runs without queue and database is seen in tests/benchmarks/test_gpu_benchmark.py.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "producer", "worker", "catalog", "kosmograph")
MAY_IMPORT = {
    "schemas": set(),
    "producer": {"schemas"},
    "worker": {"schemas"},
    "catalog": {"schemas"},
    "kosmograph": {"schemas", "producer", "worker", "catalog"},
}
LOADER_PROCESS = ("loader_process", "images", "fetch")
TORCH_BELONGS_TO = ("worker", "examples", "benchmarks", "tests")
BINARY = {".safetensors", ".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff"}
READ_THE_ENVIRONMENT = {
    "schemas/environment.py",
    "kosmograph/workers.py",  # what a worker process is given; CUDA_VISIBLE_DEVICES
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The top names of everything that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(n.partition('.')[0] for n in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_those_below_it(package: str) -> None:
    for path in sources(package):
        others = set(imported(path)) & set(PACKAGES) - {package}
        assert others <= MAY_IMPORT[package], f"{path} imports {others - MAY_IMPORT[package]}"


def test_only_the_worker_imports_torch() -> None:
    for package in set(PACKAGES) - set(TORCH_BELONGS_TO):
        for path in sources(package):
            assert not {"torch", "transformers", "accelerate"} & set(imported(path)), path


def test_loader_process_imports_neither_torch_nor_celery() -> None:
    names = ", ".join(f"worker.{name}" for name in LOADER_PROCESS)
    assert not {"torch", "transformers", "celery", "sqlalchemy"} & modules_after(f"import {names}")


def test_light_side_imports_no_torch() -> None:
    light = "import producer.dispatcher, producer.registration, catalog.queries, kosmograph.annotate, kosmograph.cli"
    assert not {"torch", "transformers"} & modules_after(light)


def test_environment_is_read_in_one_place() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and "environ" in [a.name for a in node.names])
    }
    assert readers <= READ_THE_ENVIRONMENT


def test_nothing_works_at_import() -> None:
    """No thread, no child and no file: an import only defines."""
    code = "import threading; before = threading.active_count()\nimport kosmograph.annotate, worker.service\n"
    assert "celery" in modules_after(code + "assert threading.active_count() == before")


def tracked_text() -> Iterator[tuple[Path, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if (
            name
            and path.is_file()
            and path.suffix not in (".safetensors", ".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff")
        ):
            yield path, path.read_text(errors="replace")


def test_no_file_names_this_machine_or_a_registry() -> None:
    mark = "/wo" + "rk/"
    hosts = re.compile(
        r"(?i)\b(index-url|extra-index-url|files\.pythonhosted|registry\.npmjs|artifactory|proxy\.golang)"
    )
    for path, text in tracked_text():
        if path == Path(__file__).resolve():
            continue
        assert mark not in text, f"{path} names a path of one machine"
        assert str(ROOT) not in text, f"{path} names this folder"
        assert not hosts.search(text), f"{path} names a registry"
