"""A random sample of a listing, in one pass over it."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from producer.sources import Item, Source

SEED = 20_231_226
"""The same listing has the same sample each time."""
NAMES_WHERE_COUNTED = 1_000_000
"""Where the user says how many images there are, so many of them are listed to draw from."""


@dataclass
class Sample:
    """Items in random order, and how many the listing had."""

    items: list[Item] = field(default_factory=list)
    listed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    whole: bool = True
    """Whether the listing was gone through to its end."""


def draw(
    sources: Sequence[Source],
    size: int,
    *,
    most: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int], object] = lambda listed: None,
) -> Sample:
    """So many images, each of the listing with the same chance (Vitter's algorithm R), in an order that is random too.

    With `most` only so many names are listed. `progress` is told how many images there are so far.
    """
    chance, sample = random.Random(SEED), Sample()
    for listed in (one for source in sources for one in source.list()):
        if stopped() or (most is not None and sample.listed >= most):
            sample.whole = False
            break
        if listed.skip is not None:
            sample.skipped[listed.skip] += 1
        if listed.item is None:
            continue
        sample.listed += 1
        if len(sample.items) < size:
            sample.items.append(listed.item)
        elif (place := chance.randrange(sample.listed)) < size:
            sample.items[place] = listed.item
        if sample.listed % 1000 == 0:
            progress(sample.listed)
    chance.shuffle(sample.items)
    return sample
