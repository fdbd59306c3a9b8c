# ruff: noqa: T201
"""What `--verify` costs: an image with its checks against a plain caption, side by side in one process, on this CPU.

    python -m benchmarks.verification [--images 96] [--rounds 5] [--threads 1] [--entities 2] [--tokens 21]

The model is random and of KOSMOS-2's proportions: a text half of four times the parameters of its vision half, so that
an image's pass, its prefix and a token take the shares that they have there. Such a model says nothing to be checked;
so each caption has the length of a real one (21 tokens on average), and the checks are those of the published example,
a snowman and a fire, or of more of them. Each check runs for as long as it would with a box.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.engine import CLOCKS, machine
from benchmarks.models import BRIEF, Half, Shape, blots, build
from schemas.recipes import Recipe
from schemas.verification import ABSENT, MIRROR, PHRASES, Manner
from worker.engine import Engine
from worker.generation import Generation, Pixels, Request
from worker.verification import follow_up_of

PROPORTIONED = Shape(Half(8, 512, 8), Half(8, 256, 4), vocabulary=1229, positions=512)
ENTITIES = (
    "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>",
    "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>",
    "<phrase> a hat</phrase><object><patch_index_0048><patch_index_0250></object>",
    "<phrase> a pot</phrase><object><patch_index_0610><patch_index_0872></object>",
)
MANNERS: dict[str, Manner] = {"plain captions": "", "--verify --no-mirror": PHRASES, "--verify": MIRROR}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=96)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--slots", type=int, default=64)
    options.add_argument(
        "--entities", type=int, default=2, choices=range(1, 5), help="phrases of a caption, a box each"
    )
    options.add_argument("--tokens", type=int, default=21, help="of a caption")
    options.add_argument("--clock", choices=CLOCKS, default="cpu", help="cpu: on busy cores, with one thread")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    images, clock = blots(given.images), CLOCKS[given.clock]
    seconds: dict[str, list[float]] = {name: [] for name in MANNERS}
    print(f"{machine()}; {given.images} images, {given.entities} phrases, {given.tokens} tokens", flush=True)
    with Engine(build(PROPORTIONED, end_gain=1.0), given.slots) as engine:
        for _ in range(given.rounds + 1):
            for name, manner in MANNERS.items():
                begin = clock()
                run(engine, [request(image, manner, given.tokens, given.entities) for image in images])
                seconds[name].append(clock() - begin)
    for name, measured in seconds.items():
        per_image = [one / given.images * 1000 for one in measured[1:]]  # the first round is to warm up
        ratios = [one / plain for one, plain in zip(measured[1:], seconds["plain captions"][1:], strict=True)]
        print(
            f"{name:22} {statistics.median(per_image):6.2f} ms of {given.clock} an image, "
            f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def request(pixels: Pixels, manner: Manner, tokens: int, entities: int) -> Request:
    """A caption of so many tokens, and the checks of so many phrases."""
    recipe = Recipe(task="brief", prompt=BRIEF, model="m", revision="r", dtype="float32", verify=manner, absent=ABSENT)
    ask = follow_up_of(recipe, BRIEF, pixels)
    canned = Generation([2], [0.0], f"{BRIEF}{' and'.join(ENTITIES[:entities])}.", "stop")

    def follow_up(_: Generation) -> Sequence[Request]:
        return [replace(one, min_new_tokens=one.max_new_tokens) for one in ask(canned)] if ask else ()

    return Request(pixels, BRIEF, tokens, min_new_tokens=tokens, follow_up=follow_up if ask else None)


def run(engine: Engine, requests: Sequence[Request]) -> None:
    for future in [engine.submit(one) for one in requests]:
        future.result()


if __name__ == "__main__":
    main()
