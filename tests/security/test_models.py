"""Model folders that would run code, or are broken: each is refused in one line, by the command that is given it."""

import json
import pickle
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self._mark,))


def pickled_only(model: Path, mark: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))


def with_code(model: Path, mark: Path) -> None:
    (model / "modeling.py").write_text(f"open({str(mark)!r}, 'w')")


def with_auto_map(model: Path, mark: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Model", "AutoConfig": "someone/else--modeling.Config"}
    (model / "config.json").write_text(json.dumps(config))


def with_broken_header(model: Path, mark: Path) -> None:
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes((2**60).to_bytes(8, "little") + weights[8:])


def with_header_that_is_no_json(model: Path, mark: Path) -> None:
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[8:12] = b"\x80\x04}]"
    (model / "model.safetensors").write_bytes(weights)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (pickled_only, "only pickled weights, which can run code"),
        (with_code, "brings code of its own (modeling.py)"),
        (with_auto_map, "brings code of its own (config.json)"),
        (with_broken_header, "its header is longer than the file"),
        (with_header_that_is_no_json, "is broken"),
    ],
)
def test_folder_is_refused_in_one_line_and_runs_nothing(
    kosmograph: Any, tmp_path: Path, damage: Callable[[Path, Path], None], told: str
) -> None:
    model, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(str(files("worker") / "demo"), model)
    damage(model, mark)
    commands = (
        ("submit", str(tmp_path), "--model", str(model)),
        ("worker", "--model", str(model), "--broker", "redis://127.0.0.1:1/0"),
    )
    for command in commands:
        run = kosmograph(*command)
        lines = run.err.splitlines()
        assert (run.code, "Traceback" in run.err) == (1, False), run.err
        assert told in lines[-1]
        assert command[0] != "submit" or len(lines) == 1
    assert not mark.exists()
