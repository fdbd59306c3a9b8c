"""Which model exactly: its name, and a revision that stands for its weights. Imports neither torch nor transformers."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from schemas.errors import SetupError, UsageError
from worker.capability import lacks_bfloat16

DEMO = "demo"
NULL = "null"
DTYPES = ("float32", "bfloat16", "float16")

CONFIG_FILES = (
    "added_tokens.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What shapes the output beside the weights. Not `generation_config.json`: the engine passes every parameter itself."""

SAMPLE_BYTES = 32 * 1024
MAX_HEADER_BYTES = 100 * 10**6
"""The limit of the safetensors format."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class ModelRef:
    """A model that can be loaded again. `path` is the folder of a local one, None for one of the hub and for `null`."""

    name: str
    revision: str
    path: Path | None
    dtype: str


def resolve(model: str, revision: str | None = None, dtype: str | None = None, device: str | None = None) -> ModelRef:
    """The model of that name (`demo`, `null`, a folder, or a hub id) at the revision that it has now.

    A folder of the name `demo` or `null` is written `./demo`. For a folder, `revision` is what it must have.
    The dtype, unless told, is float32 for `demo` and bfloat16 for others; float16 if `device`, which is one of this
    machine, lacks bfloat16. Whoever leaves the work to other machines gives none.
    Raises SetupError where it cannot be resolved, UsageError for an unknown dtype.
    """
    if model == NULL:
        return ModelRef(NULL, NULL, None, "none")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; known are {', '.join(DTYPES)}")
    dtype = dtype or _default_dtype(model, device)
    folder = folder_of(model)
    if folder is None:
        return ModelRef(model, _commit(model, revision), None, dtype)
    try:
        found = folder_revision(folder)
    except OSError as error:
        raise SetupError(f"{folder} cannot be read ({error}): check its permissions") from None
    if revision not in (None, found):
        raise SetupError(f"{folder} is now {found}, not {revision}: give the folder as it was, or no --revision")
    return ModelRef(folder.name, found, folder, dtype)


def folder_of(model: str) -> Path | None:
    """The folder of a local model; None for one of the hub, and for `null`."""
    if model == NULL:
        return None
    folder = Path(str(files("worker") / "demo")) if model == DEMO else Path(os.path.expanduser(model))
    return folder.resolve() if folder.is_dir() else None


def _default_dtype(model: str, device: str | None) -> str:
    if model == DEMO:
        return "float32"
    return "float16" if device is not None and lacks_bfloat16(device) else "bfloat16"


def folder_revision(folder: Path) -> str:
    """`sha256:` and 32 digits that change when the weights, the config or the tokenizer do.

    Of the weights it reads the header, tensors of up to 96 KiB whole, and 32 KiB from the beginning, the middle and the
    end of each larger one: tens of megabytes instead of gigabytes. Training moves every tensor, so that no
    retrained, merged or converted model goes unnoticed.
    """
    weights = check_folder(folder)
    _refuse_code(folder)
    digest = hashlib.sha256()
    for path in (folder / name for name in CONFIG_FILES):
        if path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    for path in weights:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        for part in _samples(path):
            digest.update(part)
    return f"sha256:{digest.hexdigest()[:32]}"


def check_folder(folder: Path) -> list[Path]:
    """The weight files of a KOSMOS-2 folder. Raises SetupError unless it is whole."""
    config = _json(folder / "config.json")
    if config.get("model_type") != "kosmos-2":
        raise SetupError(f"{folder} holds a {config.get('model_type')!r} model; Kosmograph runs 'kosmos-2' models only")
    if not (folder / "tokenizer.json").is_file():
        raise SetupError(f"{folder} has no tokenizer.json: copy it from the model's page")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = any(any(folder.glob(pattern)) for pattern in _PICKLES)
        found = "only pickled weights, which can run code" if pickled else "no weights"
        raise SetupError(f"{folder} has {found}: give a folder with *.safetensors files")
    for path in weights:
        _tensors(path)
    return weights


def _refuse_code(folder: Path) -> None:
    """Nothing. Raises SetupError where the folder brings Python of its own (of the hub, none is ever downloaded)."""
    scripts = sorted(folder.glob("*.py"))
    mapped = [name for name in CONFIG_FILES if name.endswith("config.json") and "auto_map" in _json(folder / name, {})]
    for name in [path.name for path in scripts] + mapped:
        raise SetupError(f"{folder} brings code of its own ({name}), which is never run: give a folder without it")


def _json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file, or `default` where there is no such file."""
    if not path.is_file() and default is not None:
        return default
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SetupError(f"{path.parent} has no {path.name}: give the folder of a KOSMOS-2 model") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SetupError(f"{path} is not a JSON object: copy it again from the model's page")
    return found


def _tensors(path: Path) -> tuple[int, list[tuple[int, int]]]:
    """Where a safetensors file's data begin, and the span of each tensor in the file, in order.

    Raises SetupError for a file whose header is broken or which is cut short
    (the format: https://github.com/huggingface/safetensors#format).
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        start = 8 + length
        offsets = (entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
        spans = sorted((start + int(first), start + int(end)) for first, end in offsets)
        if not spans or spans[-1][1] != size or any(not start <= first <= end <= size for first, end in spans):
            raise ValueError("its tensors do not fill the file")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SetupError(f"{path} is broken ({error}): copy or download it again") from None
    return start, spans


def _samples(path: Path) -> Iterator[bytes]:
    """The header, then the pieces of every tensor that stand for the whole."""
    start, spans = _tensors(path)
    with path.open("rb") as file:
        yield file.read(start)
        for first, end in spans:
            size = end - first
            whole = size <= 3 * SAMPLE_BYTES
            for offset in (0,) if whole else (0, size // 2, size - SAMPLE_BYTES):
                file.seek(first + offset)
                yield file.read(size if whole else SAMPLE_BYTES)


def _commit(model: str, revision: str | None) -> str:
    """The commit of a hub model: of the hub, or, without a connection, of the last download."""
    if revision and _COMMIT.fullmatch(revision.lower()):
        return revision.lower()
    import huggingface_hub as hub  # 0.4 s, and needed for hub ids alone
    from huggingface_hub import errors

    try:
        commit = hub.HfApi().model_info(model, revision=revision, timeout=10).sha
    except errors.HFValidationError:
        raise SetupError(f"{model} is neither a folder nor a hub id such as microsoft/kosmos-2-patch14-224") from None
    except errors.RevisionNotFoundError:
        raise SetupError(f"{model} has no revision {revision!r} on the hub: give a branch, a tag or a commit") from None
    except errors.GatedRepoError:
        raise SetupError(f"{model} wants its terms accepted: do so on its page, then `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise SetupError(f"{model} is neither a folder nor on the hub (if it is private: `hf auth login`)") from None
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # httpx or httpx2, by the hub's version
        cached = hub.try_to_load_from_cache(model, "config.json", revision=revision)
        if not isinstance(cached, str):
            raise SetupError(
                f"{model} is not cached, and the hub cannot be asked ({_line(error)}): connect once, or give a folder;"
                " --model demo needs neither"
            ) from None
        return Path(cached).parent.name
    return str(commit)


def _line(error: BaseException) -> str:
    """The first line of an error."""
    return next(iter(str(error).splitlines()), type(error).__name__)
