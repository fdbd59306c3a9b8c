"""Commands of ours, for a person to copy from a page into a shell."""

import shlex

from schemas.uris import printable


def retry_command(job: str, code: str, db_option: str) -> str:
    """What tries the failures of a job again that have this code. db_option: empty, or ` --db URL`."""
    return f"kosmograph retry {quoted(job)} --code {quoted(code)}{db_option}"


def quoted(text: str) -> str:
    r"""The text as one word for a shell; what cannot be seen is spelled out, as in `$'\n'` of bash and zsh."""
    if text.isprintable():
        return shlex.quote(text)
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(plain)}'"
