"""A recipe: everything that shapes the output of the model for an image."""

import hashlib
import json
import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import Code, PermanentFailure, UsageError
from schemas.grounding import tag_in
from schemas.regions import Size, region_tokens
from schemas.uris import storable
from schemas.verification import Manner

BROKEN = "\ufffd"
"""Stands where a text held what no database can: see `plain` in schemas/ledger/bulk.py."""

TASKS = {
    "brief": "<grounding>An image of",
    "detailed": "<grounding>Describe this image in detail:",
    "phrase": "<grounding><phrase>{phrase}</phrase>",
    "referring": "<grounding><phrase>{expression}</phrase>",
    "region": "<grounding><phrase>It</phrase><object>{region}</object> is",
    "question": "<grounding>Question: {question} Answer:",
    "plain_question": "Question: {plain_question} Answer:",
}
"""Task → prompt template, as KOSMOS-2 was trained and evaluated (the paper's section 4, and microsoft/unilm).

What stands in braces is the task's field: a prompt is whole when its value stands there.
"""
REGION = "region"
"""The field whose value is a box, for which location tokens are put in."""
PROMPT = "prompt"
"""The field whose value is a whole prompt, and may hold tags: in words they would make another prompt of it."""

MAX_NEW_TOKENS = dict.fromkeys(TASKS, 64) | {"detailed": 192, "custom": 128}

PREPROCESSING = "draft448-1"
PREPROCESSING_EXACT = "exact-1"
"""How pixels are made, with a version that rises when the same file gives other pixels (see worker/images.py)."""


ADDED = ("min_new_tokens", "constrained", "input", "verify", "absent")
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
    """One prompt to one model in one manner. Its id is the hash of its canonical JSON.

    `input` is the field that each item brings its own value of: `{input}` stands for it in the prompt, once. `verify`
    is a manner of schemas/verification.py, in which boxes are held against the model; `absent` is what it may be asked
    for then though it is not there.
    """

    task: str
    prompt: str
    model: str
    revision: str
    dtype: str
    preprocessing: str = PREPROCESSING
    input: str = ""
    verify: Manner = ""
    absent: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_a_place_for_its_input(self) -> Self:
        if self.input and self.prompt.count(f"{{{self.input}}}") != 1:
            raise ValueError(f"the prompt {self.prompt!r} must hold {{{self.input}}} once")
        return self

    def fill(self, value: str, size: Size) -> str:
        """The prompt for an item that brings this value, and an image of this upright size.

        Raises PermanentFailure (bad_input) for a value that makes no prompt.
        """
        if not self.input:
            return self.prompt
        try:
            return _filled(self.prompt, self.input, value, size)
        except ValueError as error:
            raise PermanentFailure(Code.BAD_INPUT, str(error)) from None

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


def field_of(task: str) -> str:
    """The field of a task's prompt, "" where there is none. Raises UsageError for an unknown task."""
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}; tasks are {', '.join(TASKS)}")
    found = re.search(r"{(\w+)}", TASKS[task])
    return found[1] if found else ""


def prompt_for(task: str, words: str = "") -> str:
    """The prompt of a task with these words (a phrase, a question, a region in fractions) in the place of its field.

    Raises UsageError for an unknown task, for no words, and for what is no region.
    """
    field = field_of(task)
    flag = f"--{field.replace('_', '-')}"
    if field and not words.strip():
        raise UsageError(f"the task {task!r} needs its {field}, as in {flag} TEXT")
    try:
        return _filled(TASKS[task], field, words.strip()) if field else TASKS[task]
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def _filled(template: str, field: str, value: str, size: Size | None = None) -> str:
    """Raises ValueError, with what is wrong with the value."""
    if not value.strip():
        raise ValueError(f"there is no {field} for this image: the cell is empty, or holds no text")
    if not storable(value) or BROKEN in value:
        raise ValueError(f"the {field} {value[:80]!r} holds broken characters: save the manifest as UTF-8, without NUL")
    if field != PROMPT and (tag := tag_in(value)):
        raise ValueError(f"the {field} {value[:80]!r} holds {tag}, a tag of the model: leave it out, or use --prompt")
    return template.replace(f"{{{field}}}", region_tokens(value, size) if field == REGION else value)
