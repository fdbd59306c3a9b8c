"""The message: what travels through Redis. It names a chunk; what is to be done stands in the row that is claimed."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TASK_NAME = "kosmograph.annotate_chunk"


class ChunkMessage(BaseModel):
    """One chunk of so many images, ready to be claimed under its fence, by a worker that has no other if `alone`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    chunk_id: Annotated[int, Field(gt=0, lt=2**63)]
    fence: Annotated[int, Field(gt=0, lt=2**31)]
    images: Annotated[int, Field(gt=0, le=10_000)]
    alone: bool = False
