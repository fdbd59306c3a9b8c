"""A recipe: everything that shapes the output of the model for an image."""

import hashlib
import json
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import UsageError

TASKS = {
    "brief": "<grounding>An image of",
    "detailed": "<grounding>Describe this image in detail:",
    "phrase": "<grounding><phrase>{phrase}</phrase>",
    "question": "<grounding>Question: {question} Answer:",
}
"""Task → prompt template, as KOSMOS-2 was trained and evaluated (the paper's section 4, and microsoft/unilm)."""

MAX_NEW_TOKENS = {"brief": 64, "detailed": 192, "phrase": 64, "question": 64, "custom": 128}

PREPROCESSING = "draft448-1"
PREPROCESSING_EXACT = "exact-1"
"""How pixels are made, with a version that rises when the same file gives other pixels (see worker/images.py)."""


ADDED = ("min_new_tokens", "constrained")
"""Parameters that came after the first release. A recipe that leaves them alone is the one that it was before."""


class Decoding(BaseModel):
    """How an answer is decoded. `constrained` has well-formed boxes only; the others are those of `generate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(default=64, ge=1, le=1800)
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    min_new_tokens: int = Field(default=0, ge=0)
    constrained: bool = False

    @model_validator(mode="after")
    def _can_end(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} is more than max_new_tokens {self.max_new_tokens}")
        return self


class Recipe(Decoding):
    """One prompt to one model in one manner. Its id is the hash of its canonical JSON."""

    task: str
    prompt: str
    model: str
    revision: str
    dtype: str
    preprocessing: str = PREPROCESSING

    @property
    def canonical(self) -> str:
        """The JSON that is hashed and stored: sorted keys, no spaces, nothing of ADDED that has its default."""
        unused = {name for name in ADDED if getattr(self, name) == type(self).model_fields[name].default}
        spec = self.model_dump(exclude=unused)
        return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:32]

    @property
    def exact(self) -> bool:
        return self.preprocessing == PREPROCESSING_EXACT

    @property
    def queue(self) -> str:
        """The name of the queue of the workers that can do this: one for each model, revision and dtype."""
        return queue_name(self.model, self.revision, self.dtype)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.model_validate_json(text)


def queue_name(model: str, revision: str, dtype: str) -> str:
    """`kosmograph.` and twelve digits of the hash of what a worker must have loaded."""
    key = json.dumps([model, revision, dtype])
    return "kosmograph." + hashlib.sha256(key.encode()).hexdigest()[:12]


def prompt_for(task: str, words: str = "") -> str:
    """The prompt of a task with its phrase or question filled in. Raises UsageError for an unknown task or no words."""
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}; tasks are {', '.join(TASKS)}")
    template = TASKS[task]
    if "{" in template and not words.strip():
        raise UsageError(f"the task {task!r} needs its {task}, as in --{task} TEXT")
    return template.replace("{phrase}", words.strip()).replace("{question}", words.strip())
