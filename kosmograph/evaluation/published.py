"""What KOSMOS-2 reached, zero-shot, by its paper (arXiv 2306.14824, tables 3 and 4) and by microsoft/unilm's README."""

import re
from collections.abc import Mapping
from pathlib import Path

Figures = Mapping[tuple[str, str], float]
"""Group and measure → how often right, 0 to 1."""

_REFCOCO = {
    "refcoco": {"val": 0.5232, "testA": 0.5742, "testB": 0.4726},
    "refcoco+": {"val": 0.4548, "testA": 0.5073, "testB": 0.4224},
    "refcocog": {"val": 0.6057, "test": 0.6165},
}
_FLICKR30K: dict[str, dict[tuple[str, str], float]] = {
    "val": {
        ("all", "R@1"): 0.778,
        ("all", "R@5"): 0.792,
        ("all", "R@10"): 0.793,
        ("animals", "R@1"): 0.908,
        ("bodyparts", "R@1"): 0.414,
        ("clothing", "R@1"): 0.709,
        ("instruments", "R@1"): 0.768,
        ("other", "R@1"): 0.647,
        ("people", "R@1"): 0.890,
        ("scene", "R@1"): 0.806,
        ("vehicles", "R@1"): 0.867,
    },
    "test": {
        ("all", "R@1"): 0.787,
        ("all", "R@5"): 0.801,
        ("all", "R@10"): 0.801,
        ("animals", "R@1"): 0.917,
        ("bodyparts", "R@1"): 0.409,
        ("clothing", "R@1"): 0.735,
        ("instruments", "R@1"): 0.765,
        ("other", "R@1"): 0.651,
        ("people", "R@1"): 0.895,
        ("scene", "R@1"): 0.822,
        ("vehicles", "R@1"): 0.913,
    },
}


def published_for(dataset: str, path: Path) -> Figures:
    """The figures for what the file's name says it is, as MDETR names its files; none where it says nothing."""
    if dataset == "refcoco" and (found := re.search(r"(?:^|_)(refcoco[+g]?)_(val|test[AB]?)$", path.stem)):
        figure = _REFCOCO[found[1]].get(found[2])
        return {(found[1], "accuracy"): figure} if figure is not None else {}
    if dataset == "flickr30k" and (found := re.search(r"flickr_separateGT_(val|test)$", path.stem)):
        return _FLICKR30K[found[1]]
    return {}
