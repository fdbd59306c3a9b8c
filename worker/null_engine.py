"""The engine of `--model null`: what the rest of the pipeline costs when captions cost nothing."""

from concurrent.futures import Future
from typing import Self

from worker.generation import Figures, Generation, Request

FIRST_PATCH_ID = 64_012
"""As in KOSMOS-2's own vocabulary."""

_TAIL = "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>."
SNOWMAN = Generation(
    token_ids=[FIRST_PATCH_ID + 44, FIRST_PATCH_ID + 863, 2],
    logprobs=[-0.25, -0.25, -0.01],
    raw_text=f"<grounding> An image of{_TAIL}",
    finish_reason="stop",
)
"""KOSMOS-2's published example, whatever the image and prompt are; of its tokens only the two places and the end."""


class NullEngine:
    """Answers every request at once with the same grounded caption."""

    first_patch_id = FIRST_PATCH_ID

    def __init__(self) -> None:
        self._images = 0

    def submit(self, request: Request) -> Future[Generation]:
        """A future that is done."""
        self._images += 1
        future: Future[Generation] = Future()
        future.set_result(SNOWMAN)
        return future

    @property
    def figures(self) -> Figures:
        return Figures(self._images, self._images * len(SNOWMAN.token_ids), self._images, 0.0, 0, 1)

    def close(self, grace_s: float = 0.0) -> None:
        """Nothing is left to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
