"""Options that several commands share."""

from typing import Annotated, Any

import typer

MOST_PRIORITY = 1_000_000
"""Either way from 0: the ledger's column has 32 bits."""

Db = Annotated[
    str | None, typer.Option("--db", metavar="URL", help="Database (KOSMOGRAPH_DB, sqlite:///kosmograph.db).")
]
Broker = Annotated[str | None, typer.Option("--broker", metavar="URL", help="A running Redis (KOSMOGRAPH_BROKER).")]
AllowHttp = Annotated[
    bool | None,
    typer.Option(
        "--allow-http",
        help="Images by http(s) URL, from public servers only (KOSMOGRAPH_ALLOW_HTTP).",
        show_default=False,
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        "--notify",
        metavar="URL|COMMAND",
        help="Told as JSON when a job ends or pauses (KOSMOGRAPH_NOTIFY, which no list of processes shows).",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Say nothing unless something has failed since the last end: for cron.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="The name of a job, as `kosmograph status` lists them.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="ID|PATH|demo",
        help="Hub id, local folder, or the tiny model that is shipped "
        "(KOSMOGRAPH_MODEL, microsoft/kosmos-2-patch14-224).",
    ),
]
Revision = Annotated[str | None, typer.Option("--revision", metavar="R", help="The model's commit on the hub.")]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", metavar="D", help="float32, bfloat16, float16; bfloat16 unless told."),
]
DtypeHere = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="D", help="float32, bfloat16, float16; bfloat16 unless told, float16 on GPUs without it."
    ),
]
Device = Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the model runs.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="brief|detailed", help="Repeatable; brief unless there is a prompt."),
]


def _words(flag: str, what: str) -> Any:
    """An option for what goes into prompts, from the command line, a file or a manifest."""
    return typer.Option(flag, metavar="TEXT|@FILE|column:NAME", help=what)


Phrases = Annotated[list[str] | None, _words("--phrase", "Find what this phrase names; repeatable, like all of these.")]
Expressions = Annotated[list[str] | None, _words("--expression", "Find the one thing that this describes.")]
Regions = Annotated[
    list[str] | None, _words("--region", "Say what is in X1,Y1,X2,Y2, in fractions of the image (a column: or pixels).")
]
Questions = Annotated[list[str] | None, _words("--question", "Answer this, with boxes.")]
PlainQuestions = Annotated[list[str] | None, _words("--plain-question", "Answer this, without boxes.")]
Free = Annotated[list[str] | None, _words("--prompt", "A prompt of your own; boxes need <grounding> in front.")]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens", metavar="N", help="Most tokens of an answer (64; detailed 192, a prompt of your own 128)."
    ),
]
MinNewTokens = Annotated[
    int | None,
    typer.Option("--min-new-tokens", metavar="N", help="Fewest tokens of an answer; any number unless told."),
]
NoRepeatNgramSize = Annotated[
    int | None,
    typer.Option(
        "--no-repeat-ngram-size",
        metavar="N",
        help="No N tokens in a row twice; free unless told (the original demo had 3).",
    ),
]
Constrained = Annotated[bool, typer.Option("--constrained", help="Whole boxes only: two corners, the right way round.")]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Ask the model again about each of its boxes, so that `trust` says more. Takes longer."
    ),
]
NoMirror = Annotated[
    bool,
    typer.Option("--no-mirror", help="With --verify: without the check on the mirrored image, a second look at each."),
]
Absent = Annotated[
    list[str] | None,
    typer.Option("--absent", metavar="P", help="With --verify: a thing that is in no picture; repeatable."),
]
