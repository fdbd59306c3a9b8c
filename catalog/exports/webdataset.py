"""WebDataset: tar shards with NAME.jpg, NAME.json and NAME.txt for each image under a recipe.

The picture is as it is stored, the JSON is that of the format `jsonl`, the text is the caption.
"""

import io
import tarfile
from collections.abc import Iterable

from catalog.exports.base import Work, document, extension, image_name, to_json
from catalog.exports.pictures import pictured
from catalog.records import Record


def write(records: Iterable[Record], work: Work) -> None:
    shards = _Shards(work)
    try:
        for record, picture in pictured(records, work, once=False):
            # one image may be there under several recipes, and a name must not come twice
            shards.add(
                f"{image_name(record)}-{record.annotation_id}",
                {
                    extension(record): picture,
                    "json": to_json(document(record)).encode(),
                    "txt": record.caption.encode(),
                },
            )
            work.wrote(record)
    finally:
        shards.close()


class _Shards:
    """Tar files one after the other, each until it has so many images or bytes."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._count = self._images = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, name: str, files: dict[str, bytes]) -> None:
        size, options = sum(map(len, files.values())), self._work.options
        tar = self._tar
        if tar and (self._images == options.shard_images or tar.offset + size > options.shard_bytes):
            self.close()
        if self._tar is None:
            self._tar = tarfile.open(self._work.path / f"{self._count:06}.tar", "w")  # noqa: SIM115
            self._count, self._images = self._count + 1, 0
        for ending, data in files.items():
            entry = tarfile.TarInfo(f"{name}.{ending}")
            entry.size, entry.mode = len(data), 0o644
            self._tar.addfile(entry, io.BytesIO(data))
        self._images += 1

    def close(self) -> None:
        if self._tar:
            self._tar.close()
            self._tar = None
