"""The command line. Each command imports what it needs when it runs, so that help and status start at once."""

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
for commands in (group.COMMANDS for group in GROUPS):
    for command in commands:
        app.command()(command)
