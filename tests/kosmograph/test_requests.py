"""What flags ask for becomes recipes, or is refused in one line before anything is looked up."""

import os
from pathlib import Path
from typing import Any

import pytest

from kosmograph.prompts import Prompts
from kosmograph.requests import Request, find_sources, recipes_for, roots_of
from schemas.errors import UsageError
from schemas.settings import Settings

BOTH = Prompts(tasks=("brief", "detailed"))


def test_decoding_holds_for_all_recipes_and_the_rest_is_the_tasks_own() -> None:
    brief, detailed = recipes_for(Request([], BOTH, "null", decoding={"no_repeat_ngram_size": 3, "constrained": True}))
    assert (brief.max_new_tokens, detailed.max_new_tokens) == (64, 192)
    for recipe in (brief, detailed):
        assert (recipe.no_repeat_ngram_size, recipe.min_new_tokens, recipe.constrained) == (3, 0, True)


def test_most_and_least_are_those_that_were_asked_for() -> None:
    recipes = recipes_for(Request([], BOTH, "null", decoding={"max_new_tokens": 40, "min_new_tokens": 40}))
    assert [(recipe.max_new_tokens, recipe.min_new_tokens) for recipe in recipes] == [(40, 40)] * 2


@pytest.mark.parametrize(
    ("decoding", "words"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens 0: input should be greater than or equal to 1"),
        ({"max_new_tokens": 1801}, "--max-new-tokens 1801: input should be less than or equal to 1800"),
        ({"min_new_tokens": -1}, "--min-new-tokens -1: "),
        ({"no_repeat_ngram_size": -3}, "--no-repeat-ngram-size -3: "),
        ({"min_new_tokens": 70}, "min_new_tokens 70 is more than max_new_tokens 64 (the task 'brief')"),
        ({"min_new_tokens": 6, "max_new_tokens": 5}, "min_new_tokens 6 is more than max_new_tokens 5"),
    ],
)
def test_decoding_that_cannot_be_is_told_in_one_line_before_the_model_is_looked_for(
    decoding: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        recipes_for(Request([], BOTH, "/no such model", decoding=decoding))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_named_one_by_one_are_looked_at_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell gives them that was told `photos/*.jpg`."""
    names = [str(tmp_path / f"{number}.jpg") for number in range(100)]
    for name in names:
        Path(name).write_bytes(b"x")
    resolved = []
    realpath = os.path.realpath

    def counted(path: Any, **options: Any) -> Any:
        resolved.append(path)
        return realpath(path, **options)

    monkeypatch.setattr(os.path, "realpath", counted)
    request = Request(names, Prompts(), "null")
    sources = find_sources(request, Settings(db=f"sqlite:///{tmp_path}/kosmograph.db"))
    assert len(sources) == 100
    assert len(resolved) < 3 * len(names)
    assert roots_of(request, sources) == [str(tmp_path)]
