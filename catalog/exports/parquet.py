"""Parquet: an image under a recipe a row, its entities a list of structs, their boxes a list in these."""

from collections.abc import Iterable
from typing import Any

from catalog.exports.arrow import parquet_rows, pyarrow
from catalog.exports.base import Work, document
from catalog.records import BELIEF, Record


def write(records: Iterable[Record], work: Work) -> None:
    with parquet_rows(work.path, schema()) as rows:
        for record in records:
            rows.add(document(record))
            work.wrote(record)


def schema() -> Any:
    """The columns, as `base.document` names them."""
    arrow = pyarrow()
    text, real, whole = arrow.string(), arrow.float64(), arrow.int64()
    box = {
        **dict.fromkeys(("x1", "y1", "x2", "y2", "area", "score"), real),
        "valid": arrow.bool_(),
        **dict.fromkeys(("expected", "sigma"), arrow.list_(real)),
        **{name: text if name == "doubts" else real for name in BELIEF},
    }
    entity = {
        "phrase": text,
        "phrase_norm": text,
        "head": text,
        "start": whole,
        "end": whole,
        "score": real,
        "boxes": arrow.list_(arrow.struct(list(box.items()))),
    }
    texts = ("uri", "task", "prompt", "caption", "raw_text", "finish_reason")
    columns = {
        "job": text,
        "image_id": whole,
        "annotation_id": whole,
        **dict.fromkeys(texts, text),
        "mean_logprob": real,
        "width": whole,
        "height": whole,
        **dict.fromkeys(("sha256", "format", "model", "revision", "input", "absent_phrase"), text),
        **dict.fromkeys(("yes_bias", "absent_score"), real),
        "entities": arrow.list_(arrow.struct(list(entity.items()))),
    }
    return arrow.schema(list(columns.items()))
