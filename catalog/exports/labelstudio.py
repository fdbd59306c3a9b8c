"""Label Studio: tasks with predictions, and the labelling configuration that they are for, beside them.

A local file is told by the URL of Label Studio's own file server, for a document root of `/`
(LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true); objects of S3 by their URI, for a storage connection.
"""

from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

from catalog.exports.base import NO_PHRASE, Categories, Work, to_json
from catalog.records import Box, Record
from schemas.uris import scheme_of

LOCAL_FILES = "/data/local-files/?d="


def write(records: Iterable[Record], work: Work) -> None:
    categories = Categories(work.options.categories)
    with work.path.open("w") as file:
        file.write("[\n")
        for number, record in enumerate(map(work.drawable, records)):
            file.write((",\n" if number else "") + to_json(_task(record, categories)))
            work.wrote(record)
        file.write("\n]\n")
    work.path.with_name(work.path.name + ".config.xml").write_text(_configuration(categories), encoding="utf-8")


def _task(record: Record, categories: Categories) -> dict[str, Any]:
    result, scores = [], []
    for entity in record.entities:
        categories.number(entity)
        for number, box in enumerate(entity.boxes):
            label = categories.name(entity)
            result.append(_region(record, box, label, f"{entity.ordinal}-{number}", entity.phrase))
            scores += [] if box.score is None else [box.score]
    prediction = {
        "model_version": f"{record.model}@{record.revision}",
        "score": sum(scores) / len(scores) if scores else 0.0,
        "result": result,
    }
    data = {
        "image": _url(record.uri),
        "caption": record.caption,
        "uri": record.uri,
        "image_id": record.image_id,
        "task": record.task,
    }
    return {"data": data, "predictions": [prediction]}


def _region(record: Record, box: Box, label: str, name: str, phrase: str) -> dict[str, Any]:
    """A rectangle in percent of the picture."""
    return {
        "id": name,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": record.width,
        "original_height": record.height,
        "image_rotation": 0,
        "meta": {"text": [phrase]},
        "value": {
            "x": 100 * box.x1,
            "y": 100 * box.y1,
            "width": 100 * (box.x2 - box.x1),
            "height": 100 * (box.y2 - box.y1),
            "rotation": 0,
            "rectanglelabels": [label],
        },
    } | ({} if box.score is None else {"score": box.score})


def _url(uri: str) -> str:
    return LOCAL_FILES + uri.removeprefix("file:///") if scheme_of(uri) == "file" else uri


def _configuration(categories: Categories) -> str:
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in categories.names or [NO_PHRASE])
    return f"""<View>
  <Text name="caption" value="$caption"/>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="label" toName="image">
{labels}  </RectangleLabels>
</View>
"""
