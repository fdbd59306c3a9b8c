"""What each column of the views in schemas/views.py means; docs/reference/sql.md is made of it."""

from typing import Literal, NamedTuple


class Column(NamedTuple):
    """What a column holds. `time` is a time with its zone on PostgreSQL, and UTC as text on SQLite."""

    type: Literal["text", "integer", "real", "boolean", "time"]
    text: str
    unit: str = ""


FRACTION = "fraction of the image's side"
PIXELS = "pixels of the upright image"
CHANCE = "0 to 1"

VIEWS = {
    "captions": "One row per annotated outcome: an image of a job, under one of its recipes.",
    "groundings": "One row per box: a phrase with three boxes is in three rows, and one with none in none.",
    "failures": "One row per outcome that failed. What `retry` has put back to work is not there until it fails again.",
    "progress": "One row per job. What is counted are outcomes (images × recipes), but in `images`.",
    "relations": "One row per ordered pair of valid boxes of an annotation: every two are there, either way round.",
    "cooccurrences": "One row per ordered pair of different phrases of a job that are said of the same picture.",
}
"""What a row of each view is."""

_IMAGE = {
    "job": Column("text", "The job's name."),
    "image_id": Column(
        "integer", "The image: a version of a URI. Two jobs that saw the same version have the same id."
    ),
}
_URI = {"uri": Column("text", "Where the image lies: `file:///…`, `s3://bucket/key`, `https://…`.")}
_TASK = {
    "task": Column(
        "text", "`brief`, `detailed`, `phrase`, `referring`, `region`, `question`, `plain_question` or `custom`."
    )
}
_ANNOTATION = {
    "annotation_id": Column(
        "integer", "The annotation: what one recipe made of these bytes. Copies of an image share it."
    )
}
_WHERE = {**_IMAGE, **_ANNOTATION, **_URI, **_TASK}
_INPUT = {
    "input": Column(
        "text", "What the item's row of the manifest brought to the prompt (`column:`); null where nothing."
    )
}
_CORNERS = {"x1": "left", "y1": "upper", "x2": "right", "y2": "lower"}


def _edges(prefix: str, said: str, unit: str, kind: Literal["real", "integer"] = "real") -> dict[str, Column]:
    """A column for each edge of a box."""
    return {
        f"{prefix}{name}": Column(kind, said.format(edge=edge, at=name.rstrip("12")), unit)
        for name, edge in _CORNERS.items()
    }


_CAPTIONS = {
    **_WHERE,
    "prompt": Column("text", "The whole prompt, with what the item brought to it."),
    "caption": Column("text", "What people read: prompt and answer, without the model's tags."),
    "raw_text": Column("text", "The same with the tags, location tokens included."),
    "finish_reason": Column("text", "`stop`: the model ended by itself. `length`: it was cut at `--max-new-tokens`."),
    "tokens": Column("integer", "How many tokens the model generated.", "tokens"),
    "mean_logprob": Column("real", "Mean log-probability of the generated tokens.", "natural logarithm"),
    "width": Column("integer", "Width after the EXIF orientation is applied.", PIXELS),
    "height": Column("integer", "Height, likewise.", PIXELS),
    "sha256": Column("text", "Of the image's bytes, in hexadecimal."),
    "model": Column("text", "The model's id, or the folder it was loaded from."),
    "model_revision": Column("text", "The commit on the hub, or `sha256:` and a hash of the folder's weights."),
    "reused": Column("boolean", "Whether the annotation was there already, and nothing was computed."),
    "created_at": Column("time", "When the annotation was made; of a reused one, when it was made first."),
    "score": Column("real", "`exp(mean_logprob)`: the geometric mean of the tokens' probabilities.", CHANCE),
    **_INPUT,
    "absent_phrase": Column("text", "With `--verify`: a thing that was asked for though it is hardly in any picture."),
    "yes_bias": Column("real", "The probability that the model boxes `absent_phrase` all the same.", CHANCE),
    "absent_score": Column("real", "The score of the box that it would give it.", CHANCE),
}
_GROUNDINGS = {
    **_WHERE,
    "caption": Column("text", "As in `captions`."),
    "entity": Column("integer", "The phrase's number in its caption, from 0."),
    "phrase": Column("text", "The words, as they stand in the caption; empty where the model gave a box and no words."),
    "phrase_norm": Column("text", "The phrase in lower case, without its leading article."),
    "span_start": Column("integer", "Where the phrase begins in `caption`, from 0.", "characters"),
    "span_end": Column("integer", "Where it ends: the first character behind it.", "characters"),
    "box": Column("integer", "The box's number among those of the phrase, from 0."),
    **_edges("", "The box's {edge} edge.", FRACTION),
    **_edges("p", "The box's {edge} edge, rounded to the nearest pixel.", PIXELS, "integer"),
    "area": Column("real", "0 where the box's corners are the wrong way round.", "fraction of the image's area"),
    "score": Column(
        "real", "Geometric mean of the probabilities of the box's two location tokens, each one of 1,024.", CHANCE
    ),
    "valid": Column("boolean", "Whether the corners are the right way round and within the image."),
    "phrase_score": Column("real", "Geometric mean of the probabilities of the phrase's tokens.", CHANCE),
    "head": Column("text", "The phrase's head noun in the singular: `dog` for “two small brown dogs on the beach”."),
    **_edges("expected_", "The {edge} edge between the grid's lines: the mean of the location distribution.", FRACTION),
    **_edges("sigma_p", "How unsure the model was of the {edge} edge: a standard deviation, from the entropy.", PIXELS),
    "presence": Column(
        "real", "With `--verify` or `--phrase`: the probability of any box for the phrase alone.", CHANCE
    ),
    "agreement": Column("real", "With `--verify`: the IoU with what the model boxes for the phrase alone.", CHANCE),
    "mirror_agreement": Column("real", "The same on the mirrored image; not with `--no-mirror`.", CHANCE),
    "naming": Column("real", "With `--verify`: the probability of the phrase, asked what is in the box.", CHANCE),
    "plausibility": Column("real", "Less than 1 where there are `doubts`.", CHANCE),
    "doubts": Column("text", "What is odd of it, with commas: `inverted`, `full_frame`, `repeated`, `many_alike`."),
    "evidence": Column("real", "Geometric mean of what is known of these, times `plausibility`.", CHANCE),
    "trust": Column(
        "real", "`evidence`, through a calibration where there is one: then the chance of being right.", CHANCE
    ),
}
_FAILURES = {
    **_IMAGE,
    **_URI,
    **_TASK,
    "code": Column("text", "Why: see [error codes](errors.md)."),
    "message": Column("text", "The same in a sentence, with the limit, the value and the remedy."),
    "tries": Column("integer", "How often it was tried.", "attempts"),
    "failed_at": Column("time", "When it was recorded."),
    **_INPUT,
}
_PROGRESS = {
    "job": _IMAGE["job"],
    "state": Column("text", "`running`, `paused`, `finished` or `cancelled`."),
    "images": Column("integer", "How many were listed: a URI that is listed twice counts twice.", "images"),
    "recipes": Column("integer", "How many prompts each image is asked.", "recipes"),
    "annotated": Column("integer", "Outcomes that were computed.", "outcomes"),
    "reused": Column("integer", "Outcomes whose annotation was there already.", "outcomes"),
    "failed": Column("integer", "Outcomes that failed.", "outcomes"),
    "pending": Column("integer", "What is left: images × recipes, less the three above.", "outcomes"),
    "started_at": Column("time", "When it was started, or last reopened."),
    "finished_at": Column("time", "When it ended; null while it has not."),
    "images_per_s": Column("real", "Outcomes since `started_at`, by seconds and recipes.", "images/s"),
}
_OTHER = "The same of the other box."
_RELATIONS = {
    **_WHERE,
    **{name: _GROUNDINGS[name] for name in ("entity", "box", "phrase", "phrase_norm", "head", "score", "area")},
    "other_entity": Column("integer", _OTHER),
    "other_box": Column("integer", _OTHER),
    "other_phrase": Column("text", _OTHER),
    "other_norm": Column("text", "`phrase_norm` of the other box."),
    "other_head": Column("text", _OTHER),
    "other_score": Column("real", _OTHER, CHANCE),
    "other_area": Column("real", _OTHER, "fraction of the image's area"),
    "left_of": Column("boolean", "Its centre lies left of all of the other, and the other's right of all of it."),
    "right_of": Column("boolean", "The other one is `left_of` it."),
    "above": Column("boolean", "As `left_of`, from top to bottom."),
    "below": Column("boolean", "The other one is `above` it."),
    "inside": Column("boolean", "It lies within the other, up to a cell of the grid (1/32), and is smaller."),
    "overlaps": Column("boolean", "They share ground."),
    "near": Column("boolean", "The gap between them is at most a tenth of the image, along either side."),
    "iou": Column("real", "Area of what they share, by the area that they cover together.", CHANCE),
}
_COOCCURRENCES = {
    "job": _IMAGE["job"],
    "phrase_norm": Column("text", "A phrase, in lower case and without its article."),
    "other_norm": Column("text", "Another phrase of the same pictures."),
    "images": Column("integer", "How many pictures have both.", "images"),
    "phrase_images": Column("integer", "How many have the first.", "images"),
    "other_images": Column("integer", "How many have the other.", "images"),
    "pmi": Column("real", "How much oftener together than by chance: 1 is twice as often, -1 half as often.", "bits"),
}
COLUMNS: dict[str, dict[str, Column]] = {
    "captions": _CAPTIONS,
    "groundings": _GROUNDINGS,
    "failures": _FAILURES,
    "progress": _PROGRESS,
    "relations": _RELATIONS,
    "cooccurrences": _COOCCURRENCES,
}
"""The columns of each view, in its order."""
