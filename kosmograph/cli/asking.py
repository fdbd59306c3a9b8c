"""What `find` and `export` ask of images, as options: in one place, so that both take the same."""

from typing import Annotated, Any

import typer

from kosmograph.cli.groups import taking

Asked = dict[str, Any]
"""What of a `catalog.search.Search` the options say."""


def _partner(flag: str, what: str) -> Any:
    return typer.Option(flag, metavar="P", help=what)


def _bound(flag: str, what: str) -> Any:
    return typer.Option(flag, metavar="0..1", min=0, max=1, help=what)


def _asked(
    phrase: Annotated[
        list[str] | None,
        typer.Option("--phrase", metavar="P", help="What is to be seen: dog, 'brown dog', dog*; repeatable."),
    ] = None,
    left_of: Annotated[list[str] | None, _partner("--left-of", "Its box lies left of one of P.")] = None,
    right_of: Annotated[list[str] | None, _partner("--right-of", "Right of one of P.")] = None,
    above: Annotated[list[str] | None, _partner("--above", "Above one of P.")] = None,
    below: Annotated[list[str] | None, _partner("--below", "Below one of P.")] = None,
    inside: Annotated[list[str] | None, _partner("--inside", "Within one of P.")] = None,
    overlaps: Annotated[list[str] | None, _partner("--overlaps", "Overlaps one of P.")] = None,
    near: Annotated[list[str] | None, _partner("--near", "At most a tenth of the picture from one of P.")] = None,
    min_score: Annotated[float | None, _bound("--min-score", "Its box scores at least S, of 1.")] = None,
    max_score: Annotated[float | None, _bound("--max-score", "At most S.")] = None,
    min_area: Annotated[float | None, _bound("--min-area", "Its box covers at least this part of the picture.")] = None,
    max_area: Annotated[float | None, _bound("--max-area", "At most this part.")] = None,
    min_trust: Annotated[
        float | None, _bound("--min-trust", "Its box has a trust of at least S, of 1: see calibrate.")
    ] = None,
    max_trust: Annotated[float | None, _bound("--max-trust", "At most S.")] = None,
    place: Annotated[
        str, typer.Option("--place", metavar="PLACE", help="Where its box lies: left, top-right, center.")
    ] = "",
    task: Annotated[str, typer.Option("--task", metavar="T", help="Only annotations of this task.")] = "",
    model: Annotated[str, typer.Option("--model", metavar="M", help="Only annotations by this model.")] = "",
) -> Asked:
    partners = {
        "left_of": left_of,
        "right_of": right_of,
        "above": above,
        "below": below,
        "inside": inside,
        "overlaps": overlaps,
        "near": near,
    }
    return {
        "phrases": tuple(phrase or ()),
        "relations": tuple((name, one) for name, some in partners.items() for one in some or ()),
        "min_score": min_score,
        "max_score": max_score,
        "min_area": min_area,
        "max_area": max_area,
        "min_trust": min_trust,
        "max_trust": max_trust,
        "place": place,
        "task": task,
        "model": model,
    }


searching = taking("asked", _asked)
