"""The engine of `--model null`: what the rest of the pipeline costs when captions cost nothing."""

from concurrent.futures import Future
from dataclasses import replace
from typing import Self

from worker.generation import Figures, Generation, Request, Vocabulary

VOCABULARY = Vocabulary(
    eos=2,
    pad=1,
    phrase=64_007,
    end_phrase=64_008,
    object=64_009,
    end_object=64_010,
    delimiter=64_011,
    first_patch=64_013,
)
"""As in KOSMOS-2's own tokenizer (microsoft/kosmos-2-patch14-224)."""

SLOTS = 64
"""As many as a model of some size would have."""

_TAIL = "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>."
SNOWMAN = Generation(
    token_ids=[VOCABULARY.first_patch + 44, VOCABULARY.first_patch + 863, VOCABULARY.eos],
    logprobs=[-0.25, -0.25, -0.01],
    raw_text=f"<grounding> An image of{_TAIL}",
    finish_reason="stop",
)
"""KOSMOS-2's published example, whatever the image and prompt are; of its tokens only the two places and the end."""


class NullEngine:
    """Answers every request at once with the same grounded caption."""

    vocabulary = VOCABULARY

    def __init__(self) -> None:
        self._images = 0

    def submit(self, request: Request) -> Future[Generation]:
        """A future that is done. Where the answer is to be verified, no check has an answer: nothing was looked at."""
        self._images += 1
        checks = request.follow_up(SNOWMAN) if request.follow_up else ()
        future: Future[Generation] = Future()
        future.set_result(replace(SNOWMAN, follow_ups=[None] * len(checks)))
        return future

    @property
    def figures(self) -> Figures:
        done = self._images
        return Figures(
            generations=done,
            images=done,
            tokens=done * len(SNOWMAN.token_ids),
            steps=done,
            busy_s=0.0,
            waiting=0,
            running=0,
            slots=SLOTS,
        )

    def close(self, grace_s: float = 0.0) -> None:
        """Nothing is left to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
