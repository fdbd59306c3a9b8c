"""What the model is asked, as options: in one place, so that all commands that ask it take the same."""

from typing import Any

from kosmograph.cli.groups import taking
from kosmograph.cli.options import (
    Absent,
    Constrained,
    Expressions,
    Free,
    MaxNewTokens,
    MinNewTokens,
    NoMirror,
    NoRepeatNgramSize,
    Phrases,
    PlainQuestions,
    Questions,
    Regions,
    Tasks,
    Verify,
)

Prompted = dict[str, Any]
"""What the options say, for `request_of`."""


def _prompted(
    task: Tasks = None,
    phrase: Phrases = None,
    expression: Expressions = None,
    region: Regions = None,
    question: Questions = None,
    plain_question: PlainQuestions = None,
    prompt: Free = None,
    max_new_tokens: MaxNewTokens = None,
    min_new_tokens: MinNewTokens = None,
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    constrained: Constrained = False,
    verify: Verify = False,
    no_mirror: NoMirror = False,
    absent: Absent = None,
) -> Prompted:
    return {
        "asked": (task, phrase, expression, region, question, plain_question, prompt),
        "decoding": {
            "max_new_tokens": max_new_tokens,
            "min_new_tokens": min_new_tokens,
            "no_repeat_ngram_size": no_repeat_ngram_size,
            "constrained": constrained or None,
        },
        "verification": (verify, no_mirror, absent),
    }


prompting = taking("prompted", _prompted)


def request_of(source: list[str], model: str, prompted: Prompted, **options: Any) -> Any:
    """The request. A doubt about its prompts is told at once; UsageError for what does not go together."""
    from kosmograph.requests import Request

    return Request(
        sources=source,
        model=model,
        prompts=_prompts_of(*prompted["asked"]),
        decoding={name: value for name, value in prompted["decoding"].items() if value is not None},
        **_verification_of(*prompted["verification"]),
        **options,
    )


def _prompts_of(*asked: list[str] | None) -> Any:
    """In the order of the fields of `Prompts`."""
    from kosmograph.output import warn
    from kosmograph.prompts import Prompts

    prompts = Prompts(*(tuple(some or ()) for some in asked))
    for doubt in prompts.doubts():
        warn(doubt)
    return prompts


def _verification_of(verify: bool, no_mirror: bool, absent: list[str] | None) -> dict[str, Any]:
    from schemas.errors import UsageError
    from schemas.verification import MIRROR, PHRASES

    if (no_mirror or absent) and not verify:
        raise UsageError(f"{'--no-mirror' if no_mirror else '--absent'} is a part of --verify: give that as well")
    return {"verify": (PHRASES if no_mirror else MIRROR) if verify else "", "absent": tuple(absent or ())}
