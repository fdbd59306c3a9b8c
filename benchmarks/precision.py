# ruff: noqa: T201
"""How far bfloat16 strays from float32, for the engine and for transformers, on the same images.

    python -m benchmarks.precision [--model demo|middle|all] [--images 256] [--device cpu] [--json FILE]

Both caption in bfloat16; the float32 model is then made to say those tokens. The gap of a token is the logit of what
float32 would have said less the logit of what was said: 0 where they agree. Rows with a generated pad are left out:
transformers gives a pad another position when it is read back than when it was generated.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.models import BRIEF, MIDDLE, blots, build, drawings, in_dtype
from benchmarks.rivals import Captioned, Transformers, by_engine
from worker.engine import Engine
from worker.generation import Pixels
from worker.model import IMAGE_START, IMAGE_TOKENS, Kosmos

BATCH = 16
LIMIT = 64


@dataclass(frozen=True, slots=True)
class Gap:
    """How the tokens of one way to caption stand with the float32 model."""

    name: str
    rows: int
    """Without those that have a generated pad."""
    identical: int
    """Rows that are what float32 says."""
    tokens: int
    strays: float
    """The share of tokens that float32 would not have chosen in their place."""
    p50: float
    p99: float
    most: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=("demo", "middle", "all"), default="all")
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--json", type=Path, help="a file for all figures")
    given = options.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    figures = {}
    for name in ("demo", "middle") if given.model == "all" else (given.model,):
        kosmos, images = subject(name, given.images, given.device)
        print(f"\n{name}: {len(images)} images, bfloat16 on {given.device}", flush=True)
        gaps = measure(kosmos, images, BRIEF, LIMIT)
        print_table(gaps)
        figures[name] = [asdict(gap) for gap in gaps]
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def subject(name: str, images: int, device: str) -> tuple[Kosmos, list[Pixels]]:
    """A model in float32, and images for it."""
    if name == "demo":
        from worker.model import load_model
        from worker.revision import resolve

        return load_model(resolve("demo"), device), drawings(images)
    return build(MIDDLE, device=device), blots(images)


def measure(
    kosmos: Kosmos, images: Sequence[Pixels], prompt: str, limit: int, *, slots: int = BATCH, batch: int = BATCH
) -> list[Gap]:
    """The gaps of the engine and of transformers in bfloat16; `kosmos` is in float32."""
    limits = [limit] * len(images)
    low = in_dtype(kosmos, torch.bfloat16)
    with Engine(low, slots) as engine:
        ours = by_engine(engine, images, prompt, limits)
    theirs = Transformers(low, images, prompt)(batch, limits)
    with Engine(kosmos, slots) as engine:
        exact = by_engine(engine, images, prompt, limits)
    both = (("engine", ours), ("transformers", theirs))
    return [gap_of(name, said, exact, kosmos, images, prompt) for name, said in both]


def gap_of(name: str, said: Captioned, exact: Captioned, kosmos: Kosmos, images: Sequence[Pixels], prompt: str) -> Gap:
    """`said` against what the float32 model holds of it."""
    sound = [row for row, ids in enumerate(said.token_ids) if kosmos.vocabulary.pad not in ids]
    gaps = np.concatenate([forced_gaps(kosmos, images[row], prompt, said.token_ids[row]) for row in sound])
    return Gap(
        name,
        rows=len(sound),
        identical=sum(said.token_ids[row] == exact.token_ids[row] for row in sound),
        tokens=len(gaps),
        strays=float((gaps > 0).mean()),
        p50=float(np.quantile(gaps, 0.5)),
        p99=float(np.quantile(gaps, 0.99)),
        most=float(gaps.max()),
    )


@torch.inference_mode()
def forced_gaps(kosmos: Kosmos, pixels: Pixels, prompt: str, token_ids: Sequence[int]) -> NDArray[np.float32]:
    """The gap of each token, through transformers' own `forward`."""
    prompt_ids = kosmos.prompt_ids(prompt)
    ids = torch.tensor([[*prompt_ids, *token_ids]], device=kosmos.device)
    places = torch.zeros_like(ids)
    places[:, IMAGE_START : IMAGE_START + IMAGE_TOKENS] = 1
    planes = kosmos.normalise(torch.from_numpy(pixels[None]).to(kosmos.device))
    logits: Tensor = kosmos.model(pixel_values=planes, input_ids=ids, image_embeds_position_mask=places).logits[0]
    before = logits[len(prompt_ids) - 1 : -1].float()
    chosen = before.gather(1, ids[0, len(prompt_ids) :, None])[:, 0]
    gaps: NDArray[np.float32] = (before.amax(-1) - chosen).cpu().numpy()
    return gaps


def print_table(gaps: Sequence[Gap]) -> None:
    print(
        f"{'bfloat16':<14} {'rows':>5} {'identical':>9} {'tokens':>7} {'strays':>7} {'p50':>7} {'p99':>7} {'most':>7}"
    )
    for gap in gaps:
        print(
            f"{gap.name:<14} {gap.rows:>5} {gap.identical:>9} {gap.tokens:>7} {gap.strays:>7.2%} "
            f"{gap.p50:>7.3f} {gap.p99:>7.3f} {gap.most:>7.3f}"
        )


if __name__ == "__main__":
    main()
