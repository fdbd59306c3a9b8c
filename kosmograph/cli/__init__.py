"""The command line. Each command imports what it needs when it runs, so that help and status start at once."""

import inspect
from typing import Annotated

import typer

from kosmograph.cli import after, calibrate, doctor, evaluate, jobs, look, plan, report, run, serve, services, take

app = typer.Typer(
    name="kosmograph",
    help="Annotates large image archives with KOSMOS-2: captions, phrases and boxes in SQL.\n\n"
    "Example: kosmograph annotate photos/ --model demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
GROUPS = (run, plan, services, jobs, after, look, take, report, calibrate, serve, evaluate, doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from kosmograph.output import say

        say(f"kosmograph {version('kosmograph')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What goes before the command."""


def _paragraphs(docstring: str | None) -> str:
    """Each paragraph in one line, for a terminal of any width to fold: a docstring's lines are those of the code."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(docstring or "").split("\n\n"))


for commands in (group.COMMANDS for group in GROUPS):
    for command in commands:
        app.command(help=_paragraphs(command.__doc__))(command)
