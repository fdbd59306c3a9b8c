"""Blocks of all pages can be typed: shells parse them, and Kosmograph knows each command and option in them."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from kosmograph.cli import app
from tests.docs.pages import NAMES, SHELL, blocks, prose

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ENDS = re.compile(r"[();<>|&]+")
BEGINS = re.compile(r"(?<![\w.@:-])(?<!-n )kosmograph (?=[a-z])")
"""Not the namespace of kubectl -n."""
Wrong: Any = typer.BadParameter.__base__
"""The error of wrong usage, which typer keeps to itself."""


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each Kosmograph command in a text, without its name."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for found in BEGINS.finditer(line):
            yield words_of(line[found.end() :])


def words_of(rest: str) -> list[str]:
    """What belongs to one command: up to a comment, a pipe, a redirection, or a quote that began before it."""
    lexer = shlex.shlex(rest, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if ENDS.fullmatch(word):
                break
            words.append(word)
    except ValueError:  # a quote that does not end here
        pass
    if words and words[-1].isdigit() and rest.partition(words[-1])[2].startswith((">", ">>")):
        words.pop()  # 2>&1
    return words


def refused(words: list[str]) -> str:
    """What is wrong with a command; "" where nothing is."""
    name, *arguments = words
    if name not in COMMANDS:
        return f"there is no command {name}"
    try:
        COMMANDS[name].make_context(name, list(arguments))
    except typer.Exit:  # --help
        return ""
    except Wrong as error:
        return str(error.format_message())
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_a_block_is_one_that_kosmograph_takes(name: str) -> None:
    for block in blocks(name):
        for words in commands_in(block.text):
            assert not refused(words), f"{block.place}: kosmograph {' '.join(words)}: {refused(words)}"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_a_sentence_is_there_with_its_options(name: str) -> None:
    """A sentence may name a command without what it needs, and stand for more with an ellipsis."""
    for code in re.findall(r"`(kosmograph [a-z][^`]*)`", prose(name)):
        command, *rest = words_of(code.removeprefix("kosmograph "))
        assert command in COMMANDS, code
        options = {option for one in COMMANDS[command].params for option in (*one.opts, *one.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= options | {"--help", "--"}, code


@pytest.mark.parametrize("name", NAMES)
def test_shell_parses_its_blocks(name: str) -> None:
    for block in blocks(name):
        if block.language in SHELL and not block.text.startswith((" ", "…")):
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
            assert not done.stderr, f"{block.place}: {done.stderr}"


def test_an_option_that_is_not_there_is_found() -> None:
    text = "X=1 .venv/bin/kosmograph annotate photos/ --workrs 2 | tee log  # kosmograph pause\n"
    words, _ = commands_in(text)
    assert words == ["annotate", "photos/", "--workrs", "2"]
    assert "--workrs" in refused(words)
    assert refused(["retry"])
    assert refused(["anotate", "photos/"])
    assert not refused(["retry", "job", "--code", "timeout"])
