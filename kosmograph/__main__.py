"""`kosmograph`, and `python -m kosmograph`."""

import io
import os
import sys


def main() -> None:
    """Run the command line; every foreseen error is one line on standard error."""
    _leave_the_users_folder_out()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a caption may hold what the terminal's encoding lacks
    from schemas.errors import KosmographError, UsageError

    try:
        from kosmograph.cli import app

        app(prog_name="kosmograph")
    except KosmographError as error:
        _end(str(error), 2 if isinstance(error, UsageError) else 1)
    except Exception as error:
        if type(error).__module__.startswith("sqlalchemy") and (said := getattr(error, "orig", None)):
            reason = str(said).strip().splitlines()[0]
            _end(f"the database does not do its part: {reason}; once it does, the same command goes on", 1)
        raise


def _leave_the_users_folder_out() -> None:
    """With `-m`, Python looks for modules in the present folder first: a `worker.py` there would be taken for ours."""
    here, ours = os.getcwd(), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.path and not sys.flags.safe_path and sys.path[0] in ("", here) and here != ours:
        del sys.path[0]


def _end(message: str, code: int) -> None:
    from schemas.uris import printable

    print(f"kosmograph: {printable(message)}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    main()
