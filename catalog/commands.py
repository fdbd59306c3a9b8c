"""Commands of ours, for a person to copy from a page into a shell."""

import shlex


def retry_command(job: str, code: str, db_option: str) -> str:
    """What tries the failures of a job again that have this code. db_option: empty, or ` --db URL`."""
    return f"kosmograph retry {quoted(job)} --code {quoted(code)}{db_option}"


def quoted(text: str) -> str:
    r"""The text as one word for a shell; what cannot be seen is spelled out, as in `$'\302\240'` of bash and zsh.

    Byte by byte, and in octal: of hexadecimal digits a shell might take the letters that follow for more.
    """
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_spelled, text))}'"


def _spelled(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape"))
