"""A model's revision stands for its weights, and a folder that is unsafe or incomplete is refused in one line."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest

from schemas.calibration import FILE
from schemas.errors import SetupError, UsageError
from worker.revision import SAMPLE_BYTES, ModelRef, folder_revision, resolve

COMMIT = "e91cfbcb4ce051b6a55bfb5f96165a3bbf5eb82c"
HUB_ID = "microsoft/kosmos-2-patch14-224"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    demo = resolve("demo").path
    assert demo
    return Path(shutil.copytree(demo, tmp_path / "my-kosmos"))


def write_weights(path: Path, tensors: dict[str, bytes]) -> None:
    """A safetensors file of uint8 tensors, written by hand."""
    header, end = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [end, end + len(data)]}
        end += len(data)
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(tensors.values()))


def refused(model: str | Path, *words: str) -> None:
    """Passes if resolving is refused in one line with these words."""
    with pytest.raises(SetupError) as refusal:
        resolve(str(model))
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_demo_is_float32_and_its_revision_is_that_of_its_folder() -> None:
    ref = resolve("demo")
    assert ref.path
    assert ref == ModelRef("demo", folder_revision(ref.path), ref.path, "float32")
    assert re.fullmatch(r"sha256:[0-9a-f]{32}", ref.revision)


def test_null_needs_nothing() -> None:
    assert resolve("null", revision="x", dtype="float16") == ModelRef("null", "null", None, "none")


def test_folder_has_its_own_name_and_bfloat16_unless_told(folder: Path) -> None:
    ref = resolve(str(folder))
    assert ref == ModelRef("my-kosmos", resolve("demo").revision, folder, "bfloat16")
    assert resolve(str(folder), dtype="float16").dtype == "float16"


def test_unknown_dtype_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="float64"):
        resolve("demo", dtype="float64")


def test_folder_must_have_the_revision_that_is_asked_for(folder: Path) -> None:
    found = resolve(str(folder)).revision
    assert resolve(str(folder), revision=found).revision == found
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(SetupError, match=found):
        resolve(str(folder), revision=found)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "processor_config.json", "tokenizer_config.json"])
def test_revision_changes_with_config_and_tokenizer(folder: Path, name: str) -> None:
    before = folder_revision(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    assert folder_revision(folder) != before


def test_revision_ignores_what_does_not_shape_the_output(folder: Path) -> None:
    before = folder_revision(folder)
    (folder / "README.md").write_text("a card")
    (folder / "generation_config.json").unlink()
    (folder / FILE).write_text("what `calibrate --save` writes")
    assert folder_revision(folder) == before


@pytest.mark.parametrize("tensor", range(3))
@pytest.mark.parametrize("part", [0, 0.5, 1])
def test_revision_changes_with_any_tensor_at_its_ends_and_middle(folder: Path, tensor: int, part: float) -> None:
    sizes = {"small": 40, "limit": 3 * SAMPLE_BYTES, "large": 20 * SAMPLE_BYTES}
    tensors = {name: bytes(size) for name, size in sizes.items()}
    write_weights(folder / "model.safetensors", tensors)
    before = folder_revision(folder)
    name, size = list(sizes.items())[tensor]
    changed = bytearray(size)
    changed[round(part * (size - 1))] = 1
    write_weights(folder / "model.safetensors", tensors | {name: bytes(changed)})
    assert folder_revision(folder) != before


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "config.json")


def test_another_model_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    refused(folder, "llama", "kosmos-2")


def test_config_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("<html>")
    refused(folder, "config.json")


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pickled", "safetensors")


def test_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights")


def test_python_beside_the_weights_is_refused(folder: Path) -> None:
    (folder / "modeling_kosmos2.py").write_text("raise SystemExit")
    refused(folder, "modeling_kosmos2.py", "code")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_auto_map_is_refused(folder: Path, name: str) -> None:
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    refused(folder, name, "code")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" * (len(data) - 8),
        lambda data: (2).to_bytes(8, "little") + b"{}",
        lambda data: (2).to_bytes(8, "little") + b"[]",
        lambda data: (9).to_bytes(8, "little") + b'{"a": {}}',
        lambda data: (3).to_bytes(8, "little") + b"\x80\x02.",
    ],
)
def test_broken_weights_are_refused(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    refused(folder, "model.safetensors", "broken")


@pytest.mark.parametrize("name", ["./no/such/folder", "a b", "one/two/three", "~nobody/model"])
def test_what_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    refused(name, "neither a folder nor a hub id")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of HUB_ID in an empty hub cache, offline."""
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    return tmp_path / f"models--{HUB_ID.replace('/', '--')}"


def test_commit_of_the_hub_is_taken_as_it_is(hub_cache: Path) -> None:
    assert resolve(HUB_ID, revision=COMMIT) == ModelRef(HUB_ID, COMMIT, None, "bfloat16")


def test_hub_model_in_the_cache_is_resolved_offline(hub_cache: Path) -> None:
    snapshot = hub_cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (hub_cache / "refs").mkdir()
    (hub_cache / "refs" / "main").write_text(COMMIT)
    assert resolve(HUB_ID).revision == COMMIT


def test_hub_model_that_is_not_in_the_cache_is_refused_offline(hub_cache: Path) -> None:
    refused(HUB_ID, HUB_ID, "connect once")


class Hub(BaseHTTPRequestHandler):
    """A hub that knows one model with one branch."""

    def do_GET(self) -> None:
        """The one model's commit."""
        known = self.path.split("?")[0] in (f"/api/models/{HUB_ID}", f"/api/models/{HUB_ID}/revision/v1")
        error = "RevisionNotFound" if HUB_ID in self.path else "RepoNotFound"
        body = json.dumps({"id": HUB_ID, "sha": COMMIT} if known else {"error": error}).encode()
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Silence."""


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("revision", [None, "v1"])
def test_hub_model_is_resolved_to_its_commit(hub: None, revision: str | None) -> None:
    assert resolve(HUB_ID, revision).revision == COMMIT


def test_unknown_revision_of_a_hub_model_is_refused(hub: None) -> None:
    with pytest.raises(SetupError, match="no revision 'v2'"):
        resolve(HUB_ID, "v2")


def test_model_that_the_hub_does_not_know_is_refused(hub: None) -> None:
    refused("nobody/nothing", "neither a folder nor on the hub")


def test_resolving_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, worker.revision as r; r.resolve('demo'); print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
