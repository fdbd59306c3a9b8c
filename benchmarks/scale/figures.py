"""One JSON file that gathers the figures of all parts."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Where and how figures were taken."""
    return {
        "command": " ".join(["python -m", _module(), *sys.argv[1:]]),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def keep(path: Path | None, part: str, figures: Mapping[str, Any]) -> None:
    """Add the figures of a part to the file, in the place of those that have the same names."""
    if path is None:
        return
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole[part] = _merged(whole.get(part, {}), figures)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(whole, indent=1) + "\n")
    draft.replace(path)


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return new


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return (spec.name if spec else "benchmarks.scale").removesuffix(".__main__")
