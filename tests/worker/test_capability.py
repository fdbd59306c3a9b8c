"""GPUs older than bfloat16 are known as such without torch, and whatever goes wrong changes nothing."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kosmograph.prompts import Prompts
from kosmograph.requests import Request, recipes_for
from worker import capability
from worker.capability import lacks_bfloat16
from worker.revision import resolve

NvidiaSmi = Callable[[str], None]
T4, A100 = "7.5", "8.0"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NvidiaSmi:
    """Puts a program of that name on the PATH, which says what it is told, or runs these lines of Python."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(code: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
        program.chmod(0o755)

    return install


def says(*lines: str) -> str:
    return f"assert sys.argv[1:] == {list(capability.ASK[1:])}\nprint({chr(10).join(lines)!r})"


@pytest.mark.parametrize(
    ("code", "lacks"),
    [
        (says(T4), True),
        (says("6.1", "7.0", T4), True),
        (says(A100), False),
        (says(T4, A100), False),
        (says("9.0"), False),
        (says("10.0"), False),
        (says(), False),
        (says("[N/A]"), False),
        (says(T4) + "\nsys.exit(9)", False),
        ("print('NVIDIA-SMI has failed because it could not talk to the driver')\nsys.exit(9)", False),
    ],
)
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_devices_that_all_came_before_bfloat16_lack_it(
    nvidia_smi: NvidiaSmi, code: str, lacks: bool, device: str
) -> None:
    nvidia_smi(code)
    assert lacks_bfloat16(device) == lacks


def test_no_such_program_changes_nothing(nvidia_smi: NvidiaSmi) -> None:
    assert not lacks_bfloat16("auto")


def test_program_that_hangs_is_left_behind(nvidia_smi: NvidiaSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability, "TIMEOUT_S", 0.2)
    nvidia_smi("import time; time.sleep(3600)")  # longer than any test may take
    assert not lacks_bfloat16("auto")


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_devices_are_none(nvidia_smi: NvidiaSmi, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    nvidia_smi(says(T4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert not lacks_bfloat16("auto")


@pytest.fixture
def folder() -> str:
    return str(resolve("demo").path)


def test_dtype_is_float16_where_the_model_will_run_without_bfloat16(nvidia_smi: NvidiaSmi, folder: str) -> None:
    nvidia_smi(says(T4))
    assert resolve(folder, device="auto").dtype == "float16"
    assert resolve(folder, device="cpu").dtype == "bfloat16"
    assert resolve(folder).dtype == "bfloat16"
    assert resolve(folder, dtype="bfloat16", device="auto").dtype == "bfloat16"
    assert resolve("demo", device="auto").dtype == "float32"


def test_recipes_have_that_dtype_where_the_work_is_done_here(nvidia_smi: NvidiaSmi, folder: str) -> None:
    nvidia_smi(says(T4))
    request = Request([], Prompts(), folder)
    assert [recipe.dtype for recipe in recipes_for(request, "auto")] == ["float16"]
    assert [recipe.dtype for recipe in recipes_for(request)] == ["bfloat16"]
