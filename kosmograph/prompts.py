"""Prompts as flags give them: texts, files of texts, and columns of a manifest."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from schemas.errors import UsageError
from schemas.recipes import PROMPT, TASKS, field_of, prompt_for

COLUMN = "column:"
CUSTOM = "custom"
"""The task of a prompt of one's own."""

MOST_TOLD = 3
"""A file may hold thousands of prompts, and what is wrong with them is mostly the same."""
GROUNDING = "<grounding>"
TAGS = (GROUNDING, "<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>")
_TAG = re.compile(r"<[^<>]{1,40}>")
_CELL = re.compile(r"<patch_index_(0\d{3}|10[01]\d|102[0-3])>")


class Prompt(NamedTuple):
    """A task's prompt. With an `input` it is a template, in which `{input}` stands for what each row brings."""

    task: str
    text: str
    input: str = ""

    @property
    def may_ground(self) -> bool:
        """Whether its answer can have boxes; of a whole prompt from a manifest nobody knows."""
        return GROUNDING in self.text or self.input == PROMPT


@dataclass(frozen=True)
class Prompts:
    """The prompts of a run, as flags give them. None at all means the brief caption.

    All but `tasks` are texts, `@FILE` for the lines of a file, or `column:NAME` for a column of the manifest.
    """

    tasks: Sequence[str] = ()
    phrases: Sequence[str] = ()
    expressions: Sequence[str] = ()
    regions: Sequence[str] = ()
    questions: Sequence[str] = ()
    plain_questions: Sequence[str] = ()
    free: Sequence[str] = ()

    def all(self) -> list[Prompt]:
        """Each of them once, in the order of the flags' kinds.

        Raises UsageError for a task without its words, a file that cannot be read, and what is no region.
        """
        return self._all

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns of the manifest that bring values, by the field that they are for."""
        named: dict[str, list[str]] = {}
        for task, values in self._asked:
            for value in values:
                if value.startswith(COLUMN):
                    named.setdefault(_field(task), []).append(_column(task, value))
        return {field: list(dict.fromkeys(names)) for field, names in named.items()}

    def doubts(self) -> list[str]:
        """What to tell whoever wrote prompts that can never be grounded, or tags that the model does not know."""
        told = [line for one in self.all() if one.task == CUSTOM and not one.input and (line := _doubt(one.text))]
        return told[:MOST_TOLD] + ([f"and so {len(told) - MOST_TOLD} more prompts"] if len(told) > MOST_TOLD else [])

    @property
    def _asked(self) -> list[tuple[str, Sequence[str]]]:
        return [
            ("phrase", self.phrases),
            ("referring", self.expressions),
            ("region", self.regions),
            ("question", self.questions),
            ("plain_question", self.plain_questions),
            (CUSTOM, self.free),
        ]

    @cached_property
    def _all(self) -> list[Prompt]:
        """Once, since a file may be a pipe."""
        named = [Prompt(task, prompt_for(task)) for task in self.tasks]
        asked = (_prompts(task, value) for task, values in self._asked for value in values)
        return list(dict.fromkeys(chain(named, *asked))) or [Prompt("brief", prompt_for("brief"))]


def _prompts(task: str, value: str) -> Iterator[Prompt]:
    if value.startswith(COLUMN):
        _column(task, value)
        field = _field(task)
        yield Prompt(task, f"{{{field}}}" if task == CUSTOM else TASKS[task], field)
        return
    for words in _lines(task, value[1:]) if value.startswith("@") else [value]:
        if task == CUSTOM and not words.strip():
            raise UsageError(f"--prompt is empty; write one, as in --prompt '{GROUNDING}An image of'")
        yield Prompt(task, words if task == CUSTOM else prompt_for(task, words))


def _field(task: str) -> str:
    return PROMPT if task == CUSTOM else field_of(task)


def _flag(task: str) -> str:
    return "--" + _field(task).replace("_", "-")


def _column(task: str, value: str) -> str:
    name = value.removeprefix(COLUMN)
    if not name.strip():
        raise UsageError(f"{_flag(task)} {value}: name a column of the manifest, as in {_flag(task)} {COLUMN}{PROMPT}")
    return name


def _lines(task: str, path: str) -> list[str]:
    """Those of a file that are not blank, without spaces around them."""
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8-sig").splitlines()]
    except OSError as error:
        raise UsageError(f"{_flag(task)} @{path}: {error.strerror}; name a text file, one a line") from None
    except ValueError:  # a NUL in its name, or bytes that are no text
        raise UsageError(f"{_flag(task)} @{path}: not a text file; save it as UTF-8, one a line") from None
    if not (kept := [line for line in lines if line]):
        raise UsageError(f"{_flag(task)} @{path}: nothing is in this file; write one a line")
    return kept


def _doubt(prompt: str) -> str | None:
    for tag in _TAG.findall(prompt):
        if tag not in TAGS and not _CELL.fullmatch(tag) and (near := get_close_matches(tag.lower(), TAGS, 1, 0.8)):
            return f"the prompt {prompt!r} holds {tag}, which is no tag of the model: write {near[0]}"
    if GROUNDING not in prompt:
        return f"the prompt {prompt!r} will get text without boxes: for these, begin it with {GROUNDING}"
    return None
