"""What flags ask for becomes recipes, or is refused in one line before anything is looked up."""

from typing import Any

import pytest

from kosmograph.requests import Prompts, Request, recipes_for
from schemas.errors import UsageError

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
