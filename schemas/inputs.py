"""Inputs: what an item brings to the prompts of recipes that leave something open, as a phrase, a question or a box."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from schemas.items import Item
from schemas.ledger.bulk import plain
from schemas.recipes import Recipe


def pack_input(fields: Mapping[str, str]) -> str:
    """The input of an item as canonical JSON: `{"phrase": "a dog"}`, in ASCII."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def input_hash(value: str) -> str:
    """32 hexadecimal digits that stand for a value: an index holds them whatever its length."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Inputs:
    """What items bring to some recipes, which are known by their row ids."""

    def __init__(self, recipes: Mapping[int, Recipe]) -> None:
        self._open = {id_: recipe.input for id_, recipe in recipes.items() if recipe.input}
        self._nothing = dict.fromkeys(recipes, "")

    def __bool__(self) -> bool:
        """Whether any of the recipes takes something."""
        return bool(self._open)

    def hashes_of(self, item: Item) -> Mapping[int, str]:
        """For each recipe the hash of what the item brings to it: "" for one that takes nothing."""
        if not self._open:
            return self._nothing
        return self._nothing | {id_: input_hash(value) for id_, value in self.values_of(item).items()}

    def values_of(self, item: Item) -> dict[int, str]:
        """What the item brings to each of the recipes that take something: "" where it has nothing for one.

        Every database can hold it: it is what `retry` finds there, and hashes again.
        """
        brought = json.loads(item.input) if item.input and self._open else {}
        return {id_: plain(brought.get(field, "")) for id_, field in self._open.items()}

    def values_by_hash(self, items: Iterable[Item]) -> dict[str, str]:
        """All that the items bring, each value once."""
        if not self._open:
            return {}
        return {input_hash(value): value for item in items for value in self.values_of(item).values()}
