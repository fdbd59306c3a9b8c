"""The files that the README names are there, and commands print what it shows.

Those are checked whose output is announced as `its output, checked by a test`. Queries are in
tests/catalog/test_example_queries.py.
"""

import re
import shlex
from pathlib import Path

import pytest

from tests.pipeline.conftest import here

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()


BLOCKS = re.findall(
    r"```\n(kosmograph [^\n]*)\n```\n\n<!-- its output, checked by a test -->\n```\n(.*?)```", README, re.DOTALL
)


def fits(words: list[str], printed: list[str]) -> bool:
    """Whether they are the same, up to an … at the end."""
    return printed[: len(words) - 1] == words[:-1] if words[-1] == "…" else printed == words


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=[command.split()[1] for command, _ in BLOCKS])
def test_command_prints_what_the_readme_shows(command: str, shown: str) -> None:
    """Line by line, but for what … leaves out, and for seconds."""
    run = here(ROOT, *shlex.split(command)[1:], KOSMOGRAPH_DEVICE="cpu")
    assert run.code == 0, run.err
    printed = iter(re.sub(r"in \d+ s", "in … s", line).split() for line in run.out.splitlines())
    for line in shown.splitlines():
        words = re.sub(r"in \d+ s", "in … s", line).split()
        if words and words != ["…"] and not line.startswith(" ──"):
            assert any(fits(words, one) for one in printed), line
