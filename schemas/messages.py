"""The message: what travels through Redis. A worker trusts the row that it claims, not the message."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TASK_NAME = "kosmograph.annotate_chunk"


class ChunkMessage(BaseModel):
    """One chunk, ready to be claimed under its fence, by a worker that has no other where it is to be `alone`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    chunk_id: Annotated[int, Field(gt=0, lt=2**63)]
    fence: Annotated[int, Field(gt=0, lt=2**31)]
    uris: Annotated[list[str], Field(max_length=10_000)]
    alone: bool = False
