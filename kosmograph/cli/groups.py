"""Options that several commands take alike: written once, and put into the signature of each."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

Command = Callable[..., None]


def taking(parameter: str, options: Callable[..., dict[str, Any]]) -> Callable[[Command], Command]:
    """A command with these options in the place of its one parameter, which holds what `options` makes of them."""
    group = inspect.signature(options).parameters

    def extended(command: Command) -> Command:
        own = inspect.signature(command).parameters
        every = [one for name in own for one in (group.values() if name == parameter else [own[name]])]

        @wraps(command)
        def run(**given: Any) -> None:
            command(**{parameter: options(**{name: given.pop(name) for name in group})}, **given)

        del run.__dict__["__wrapped__"]  # typer would read the annotations of the command itself
        run.__dict__["__signature__"] = inspect.Signature([one.replace(kind=one.KEYWORD_ONLY) for one in every])
        run.__annotations__ = {one.name: one.annotation for one in every}
        return run

    return extended
