"""Between those who ask and the model: requests become rows of tokens, and tokens become what the model has said."""

from typing import Literal

import numpy as np

from schemas.errors import Code, PermanentFailure
from worker.generation import Generation, Request
from worker.model import Kosmos
from worker.runner import Ended
from worker.scheduler import Row
from worker.uploads import SHAPE


class Translator:
    """Knows the model's tokens and limits, and nothing of slots."""

    def __init__(self, model: Kosmos) -> None:
        self._model = model

    def row(self, request: Request) -> Row:
        """The request as a row. Raises PermanentFailure for one that the model cannot take."""
        pixels, most = request.pixels, self._model.max_positions
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != SHAPE:
            found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {getattr(pixels, 'shape', '')}"
            raise PermanentFailure(Code.INTERNAL, f"pixels are {found}, not uint8 {SHAPE}")
        try:
            row = Row(request, *self._model.ids_of(request.prompt, request.answer))
        except (RuntimeError, TypeError, ValueError) as error:  # a lone surrogate, for one
            raise PermanentFailure(Code.MODEL_ERROR, f"the prompt cannot be read: {error}") from None
        if row.length > most:
            wanted = f"{len(row.prompt_ids)} tokens of prompt and {row.length - len(row.prompt_ids)} new ones"
            limit = f"the model's {most} positions; shorten the prompt, or lower --max-new-tokens"
            raise PermanentFailure(Code.MODEL_ERROR, f"{wanted} are more than {limit}")
        return row

    def generation(self, row: Row, ended: Ended) -> Generation:
        """What the model has said to the row's prompt."""
        text = self._model.raw_text(row.prompt_ids, ended.token_ids)
        reason: Literal["stop", "length"] = "stop" if ended.token_ids[-1] == self._model.vocabulary.eos else "length"
        return Generation(ended.token_ids, ended.logprobs, text, reason, ended.glances)

    def next_rows(self, row: Row, generation: Generation) -> list[Row]:
        """What is to be asked next; what the model cannot take has failed."""
        follow_up = row.request.follow_up
        rows = []
        for request in follow_up(generation) if follow_up else ():
            try:
                rows.append(self.row(request))
            except PermanentFailure as failure:
                rows.append(Row(request, []))
                rows[-1].future.set_exception(failure)
        return rows
