"""A job's report as one HTML page, which loads nothing and runs nothing."""

import base64
import hashlib
from collections.abc import Callable, Sequence

from markupsafe import Markup

from catalog.commands import quoted, retry_command
from catalog.drawing import COLOURS, Colour, ink_on
from catalog.report import plots, words
from catalog.report.facts import Figures, JobFacts
from catalog.report.figures import PAIRED
from catalog.report.sample import Shown
from catalog.templates import templates_of
from schemas.grounding import GRID
from schemas.uris import masked, printable

NOTES = {
    "demo": "Made by the demo model: a tiny KOSMOS-2 that Kosmograph ships, trained on drawings of coloured shapes. "
    "It knows nothing else.",
    "null": "Made without a model: the captions and boxes are the same for every image, to measure all the rest.",
}
ENDS = {"stop": "at its end (stop)", "length": "cut off at the most tokens (length)"}


def page_of(figures: Figures, pictures: Sequence[Shown], made_at: float, db_option: str) -> str:
    """The HTML. Whatever comes from the database is text in it, on one line, with what cannot be seen escaped.

    db_option: what commands on the page need to find the database.
    """
    templates = templates_of("catalog.report")
    filters: dict[str, Callable[..., str]] = {
        "shown": lambda text: printable(masked(text)),
        "number": words.number,
        "compact": words.compact,
        "moment": words.moment,
        "duration": words.duration,
    }
    templates.filters |= filters
    style = templates.get_template("style.css.j2").render(colours=_colours())
    job, boxes = figures.job, figures.boxes
    return templates.get_template("report.html.j2").render(
        style=Markup(style),  # ours alone, and hashed as it stands
        style_hash=Markup(_hash(style)),
        job=job,
        made_at=made_at,
        notes=NOTES,
        totals=_totals(job),
        failures=figures.failures,
        retry_command=lambda code: retry_command(job.name, code, db_option),
        quoted=quoted,
        captions=figures.captions,
        ends=ENDS,
        share=words.share,
        plural=words.plural,
        phrases=figures.phrases,
        heads=figures.heads,
        pairs=figures.pairs,
        together=figures.together,
        paired=PAIRED,
        boxes=boxes,
        rate=plots.rate_chart(figures.rate),
        words=plots.lengths_chart("words", "Length in words", "words", figures.captions.words),
        tokens=plots.lengths_chart("tokens", "Length in tokens", "tokens", figures.captions.tokens),
        box_scores=plots.scores_chart(
            "box-scores", "Scores of boxes", "boxes", boxes.scores, _without(boxes.unscored, "box", "boxes")
        ),
        phrase_scores=plots.scores_chart(
            "phrase-scores",
            "Scores of phrases",
            "phrases",
            figures.phrase_scores,
            _without(figures.unscored_phrases, "phrase", "phrases"),
        ),
        box_trust=plots.scores_chart(
            "box-trust",
            "Trust in boxes",
            "boxes",
            figures.trust,
            _without(figures.untrusted, "box", "boxes"),
            of="trust",
        ),
        has_trust=any(figures.trust),
        areas=plots.areas_chart(boxes.areas),
        heat=plots.heat_map(figures.heat, boxes.valid),
        frame=(plots.WIDTH, plots.HEIGHT, plots.LEFT, plots.RIGHT, plots.TOP, plots.BOTTOM),
        grid=GRID,
        cell_size=plots.CELL_SIZE,
        pictures=pictures,
        annotated_images=figures.annotated_images,
    )


def _totals(job: JobFacts) -> list[tuple[str, str]]:
    counted = [(name, words.number(getattr(job, name))) for name in ("images", "annotated", "reused", "failed")]
    pending = [("pending", words.number(job.pending))]
    return [
        *counted,
        *pending,
        ("wall time", words.duration(job.wall_s)),
        ("images/s", words.compact(job.images_per_s)),
    ]


def _without(count: int, one: str, many: str) -> str:
    return f"; {words.plural(count, one, many)} {'has' if count == 1 else 'have'} none" if count else ""


def _colours() -> list[dict[str, str]]:
    """Those of the drawn boxes, each with the ink that reads best on it."""
    return [{"ground": _hex(colour), "ink": _hex(ink_on(colour))} for colour in COLOURS]


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _hash(style: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode('ascii')}"
