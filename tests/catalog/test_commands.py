"""What a page offers for copying is what a shell takes it for."""

import os
import subprocess

import pytest

from catalog.commands import quoted, retry_command


@pytest.mark.parametrize(
    "text",
    [
        *(
            "my\u00a0job",
            "\u00a0a0",
            "\n1",
            "\x1b[0m",
            "it's",
            "it's\u202eodd",
            "back\\slash\t\\n",
            "$HOME `id`\u2028!",
        ),
        *("plain", "", "*", "\U000e0001x", os.fsdecode(b"/a\xff\xe9b")),
    ],
)
def test_bash_gives_back_the_very_text(text: str) -> None:
    word = quoted(text)
    assert word.isprintable()
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert said == os.fsencode(text)


def test_retry_command_is_one_line_whatever_the_job_is_called() -> None:
    assert retry_command("a\nb", "timeout", "") == "kosmograph retry $'a\\012b' --code timeout"
