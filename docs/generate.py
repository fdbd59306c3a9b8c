"""Writes docs/reference/: from the command line, the schema, the settings and the error codes themselves.

    python -m docs.generate

A test fails where a page is not what this would write.
"""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from sqlalchemy.dialects import postgresql

from kosmograph.cli import GROUPS, app
from schemas.environment import PREFIX
from schemas.errors import ABOUT, CONTENT_CODES, SOURCE_FAULTS, Code
from schemas.meanings import COLUMNS, VIEWS
from schemas.settings import Settings
from schemas.tables import metadata

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- Made by `python -m docs.generate`: what is changed here is lost. -->\n\n"
NAMES = {
    "run": "Annotate",
    "plan": "Plan",
    "services": "Services",
    "jobs": "Jobs",
    "after": "The morning after",
    "look": "Ask and look",
    "take": "Take away",
    "report": "Report",
    "calibrate": "Calibrate",
    "serve": "Gallery",
    "evaluate": "Evaluate",
    "doctor": "Check",
}
"""How the groups of commands are called, by their module in kosmograph/cli."""


def pages() -> dict[str, str]:
    """Each page of the reference, by the name of its file."""
    made = {"cli.md": command_line(), "sql.md": views(), "settings.md": settings(), "errors.md": codes()}
    return {name: MADE + text for name, text in made.items()}


def command_line() -> str:
    """Every command with its arguments, options, defaults and example."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parts = [
        "# Command line\n\nOptions go before `KOSMOGRAPH_*` [variables](settings.md), variables before defaults. "
        "`kosmograph COMMAND --help` says the same as this page.\n\n"
        "| exit code | |\n|---|---|\n"
        "| 0 | done |\n"
        "| 1 | an error of environment or input, or a job that was paused or cancelled: one line says the remedy |\n"
        "| 2 | wrong usage |\n"
        "| 3 | finished, and some images failed |\n"
        "| 75 | a service that another may replace with better luck: the GPU or, at the start, the database is away |\n"
        "| 130 | interrupted: the same command continues |\n"
    ]
    for group in GROUPS:
        module = group.__name__.rpartition(".")[2]
        parts.append(f"## {NAMES.get(module, module.capitalize())}\n")
        names = [one.__name__.rstrip("_").replace("_", "-") for one in group.COMMANDS]
        parts += [_command(name, commands[name]) for name in names]
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    said, _, example = (command.help or "").strip().rpartition("Example: ")
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    given = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option" and one.name != "help"]
    usage = " ".join(["kosmograph", name, *(_metavar(one) for one in given), *(["[OPTIONS]"] if options else [])])
    parts = [f"### {name}\n", f"`{usage}`\n", said.strip() + "\n"]
    if given:
        parts.append(_table(("argument", "what"), ([f"`{_metavar(one)}`", _help(one)] for one in given)))
    if options:
        parts.append(_table(("option", "what"), ([f"`{_flags(one)}`", _help(one)] for one in options)))
    return "\n".join([*parts, f"```sh\n{example.strip()}\n```\n"])


def _metavar(one: Any) -> str:
    return str(one.metavar or one.name.upper())


def _flags(one: Any) -> str:
    value = "" if one.is_flag else f" {_metavar(one)}"
    return " / ".join([*one.opts, *one.secondary_opts]) + value


def _help(one: Any) -> str:
    """The help, with what it need not say itself: whether it must be given, may be repeated, and its default."""
    said = [str(one.help or ""), *(["Repeatable."] if one.multiple and "epeatable" not in str(one.help) else [])]
    if one.param_type_name == "option" and one.required:
        said.append("**Required.**")
    elif one.default not in (None, "", (), False):
        said.append(f"Default: `{one.opts[0] if one.is_flag else one.default}`.")
    return " ".join(filter(None, said))


def views() -> str:
    """The public views with every column's meaning, and the tables that they are made of."""
    parts = [
        "# SQL\n\nSix views are the promise: their names and columns stay, new columns come at the end, and they are "
        "the same on SQLite and PostgreSQL. `kosmograph sql` asks them; [Ask in SQL](../how-to/sql.md) has queries to "
        "begin with.\n\nTypes: `time` is `timestamptz` on PostgreSQL, and UTC as text on SQLite, as in "
        "`2026-11-23 20:15:00.123`; `boolean` is 0 or 1 on SQLite. What `--verify` measures is null where it was "
        "not asked for.\n"
    ]
    for view, columns in COLUMNS.items():
        rows = ([f"`{name}`", one.type, one.unit, one.text] for name, one in columns.items())
        parts += [f"## {view}\n", VIEWS[view] + "\n", _table(("column", "type", "unit", "meaning"), rows)]
    parts.append(
        "## Tables\n\nWhat the views are made of. **No promise**: a version may change them, and only "
        "[schemas/ledger/](../../schemas/ledger) writes them. Columns whose names say all have no remark. Times are "
        "seconds since 1970 by the database's clock.\n"
    )
    dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in metadata.sorted_tables:
        rows = (
            [f"`{one.name}`", one.type.compile(dialect).lower(), "" if one.nullable else "not null", one.comment or ""]
            for one in table.columns
        )
        parts += [f"### {table.name}\n", _table(("column", "type", "", "remark"), rows)]
    return "\n".join(parts)


def settings() -> str:
    """Every setting: its variable, default, bounds and meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        secret = "" if field.repr else "; never printed"
        about = f"{field.description or ''}{secret}"
        rows.append([f"`{PREFIX}{name.upper()}`", _shown(name, field.default), _bounds(field.metadata), about])
    return (
        "# Settings\n\nEach is a variable of the environment. A flag of the command goes before it; an unknown "
        f"`{PREFIX}` variable is an error, so that a slip of the pen is seen. Sizes are in bytes, times in seconds.\n\n"
        + _table(("variable", "default", "bounds", "what"), rows)
        + "\nS3 credentials are boto3's own business: `AWS_PROFILE`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, "
        "instance roles. The hub's (for a model that is not public) are huggingface_hub's: `HF_TOKEN`.\n"
    )


def _shown(name: str, default: Any) -> str:
    if default in ("", None):
        return ""
    if name.endswith("_bytes"):
        return f"`{default}` ({default // 2**20} MiB)"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _bounds(metadata: Sequence[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{sign} {getattr(one, at)}" for one in metadata for at, sign in signs.items() if hasattr(one, at))


def codes() -> str:
    """Every error code: what it means, whether it is tried again, and the remedy."""
    kinds = {
        **dict.fromkeys(SOURCE_FAULTS, "source"),
        **dict.fromkeys(CONTENT_CODES, "content"),
    }
    rows = ([f"`{code}`", *ABOUT[code][:2], kinds.get(code, ""), ABOUT[code].remedy] for code in Code)
    return (
        "# Error codes\n\nWhy an image has no annotation: `failures.code`, and `kosmograph failures JOB`. The message "
        "beside the code says more: the limit, the value, the remedy.\n\n"
        + _table(("code", "meaning", "tried again by itself", "whose fault", "remedy"), rows)
        + "\nWhat is tried again waits longer each time (`KOSMOGRAPH_RETRY_BASE_S`), and is recorded after "
        "`KOSMOGRAPH_MAX_TRIES` attempts. `kosmograph retry JOB --code CODE` puts failures back to work.\n\n"
        "Faults of the **source**, `KOSMOGRAPH_BREAKER_IMAGES` in a row with not one image read between them, pause "
        "the job: a wrong bucket or an expired credential is not a million images' fault. Faults of the **content** "
        "never do: the source has done its part.\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(one) for one in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """As a cell takes it: one line, no tags but in code, and no | that would end it (which code cannot escape)."""
    parts = " ".join(text.split()).split("`")
    for place, part in enumerate(parts):
        if place % 2 and "|" not in part:
            parts[place] = f"`{part}`"
        else:
            plain = html.escape(part, quote=False).replace("|", "&#124;")
            parts[place] = f"<code>{plain}</code>" if place % 2 else plain
    return "".join(parts)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
