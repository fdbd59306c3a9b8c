"""Flags become prompts: texts, files and columns of a manifest; what cannot be is told in one line."""

import os
import threading
from pathlib import Path

import pytest

from kosmograph.prompts import Prompt, Prompts
from schemas.errors import UsageError
from schemas.recipes import prompt_for


def test_each_kind_of_flag_gives_its_task_in_order_and_none_twice() -> None:
    prompts = Prompts(
        ["detailed"], ["a cat", "a cat"], ["the cat at the left"], ["0,0,0.5,1"], ["Why?"], ["Why?"], ["<grounding>{x}"]
    )
    assert prompts.all() == [
        ("detailed", "<grounding>Describe this image in detail:", ""),
        ("phrase", "<grounding><phrase>a cat</phrase>", ""),
        ("referring", "<grounding><phrase>the cat at the left</phrase>", ""),
        ("region", prompt_for("region", "0,0,0.5,1"), ""),
        ("question", "<grounding>Question: Why? Answer:", ""),
        ("plain_question", "Question: Why? Answer:", ""),
        ("custom", "<grounding>{x}", ""),
    ]
    assert not prompts.columns
    assert Prompts().all() == [Prompt("brief", "<grounding>An image of")]


def test_file_gives_a_prompt_for_each_line_that_is_not_blank(tmp_path: Path) -> None:
    path = tmp_path / "phrases.txt"
    path.write_bytes("\ufeffa cat\r\n\n  the café \n".encode())
    assert [one.text for one in Prompts(phrases=[f"@{path}", "a dog"]).all()] == [
        f"<grounding><phrase>{words}</phrase>" for words in ("a cat", "the café", "a dog")
    ]


def test_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("Why?\n",))
    writer.start()
    prompts = Prompts(questions=[f"@{path}"])
    assert prompts.all() == prompts.all() == [("question", "<grounding>Question: Why? Answer:", "")]
    writer.join()


def test_column_gives_one_template_whichever_columns_bring_its_values() -> None:
    prompts = Prompts(
        phrases=["column:one", "column:two", "column:one"], plain_questions=["column:one"], free=["column:Whole prompt"]
    )
    assert prompts.all() == [
        ("phrase", "<grounding><phrase>{phrase}</phrase>", "phrase"),
        ("plain_question", "Question: {plain_question} Answer:", "plain_question"),
        ("custom", "{prompt}", "prompt"),
    ]
    assert prompts.columns == {"phrase": ["one", "two"], "plain_question": ["one"], "prompt": ["Whole prompt"]}


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (Prompts(phrases=["@no such file"]), "--phrase @no such file: No such file or directory; name a text file"),
        (Prompts(phrases=["@/"]), "--phrase @/: Is a directory"),
        (Prompts(free=["@a\0"]), "not a text file"),
        (Prompts(questions=["@/dev/null"]), "--question @/dev/null: nothing is in this file; write one a line"),
        (Prompts(plain_questions=["@/bin/sh"]), "--plain-question @/bin/sh: not a text file; save it as UTF-8"),
        (Prompts(expressions=["column: "]), "--expression column: : name a column of the manifest"),
        (Prompts(regions=["left"]), "--region: 'left' is no region; one is X1,Y1,X2,Y2"),
        (Prompts(regions=["0,0,640,480"]), "--region: the region 0,0,640,480 must be in fractions of the image"),
        (Prompts(phrases=[" "]), "the task 'phrase' needs its phrase, as in --phrase TEXT"),
        (Prompts(phrases=["x</phrase>"]), "--phrase: the phrase 'x</phrase>' holds </phrase>, a tag of the model"),
        (Prompts(questions=["<object>?"]), "holds <object>, a tag of the model: leave it out, or use --prompt"),
        (Prompts(free=[" "]), "--prompt is empty; write one, as in --prompt '<grounding>An image of'"),
        (Prompts(tasks=["region"]), "the task 'region' needs its region, as in --region TEXT"),
    ],
)
def test_what_cannot_be_is_told_with_its_flag(prompts: Prompts, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        prompts.all()
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("An image of", "will get text without boxes: for these, begin it with <grounding>"),
        ("<Grounding>An image of", "holds <Grounding>, which is no tag of the model: write <grounding>"),
        ("<grouding> An image of", "holds <grouding>, which is no tag of the model: write <grounding>"),
        ("<grounding><Phrase>a cat</phrase>", "holds <Phrase>, which is no tag of the model: write <phrase>"),
    ],
)
def test_prompt_that_can_never_ground_is_doubted(prompt: str, said: str) -> None:
    (doubt,) = Prompts(free=[prompt]).doubts()
    assert doubt == f"the prompt {prompt!r} {said}"


def test_what_is_plain_by_choice_or_grounds_is_not_doubted() -> None:
    grounded = ["<grounding>Is 3 < 5 > 2?", "<grounding><phrase>It</phrase><object><patch_index_0001></object> is"]
    assert not Prompts(plain_questions=["Why?"], free=["column:prompt", *grounded]).doubts()
    assert not Prompts().doubts()


def test_many_doubts_are_told_in_few_lines() -> None:
    doubts = Prompts(free=[f"prompt {number}" for number in range(1000)]).doubts()
    assert len(doubts) == 4
    assert doubts[-1] == "and so 997 more prompts"
