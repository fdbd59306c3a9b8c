"""The index of the words of captions: what `find` looks text up in.

PostgreSQL keeps it itself, and a caption's words beside it: to find them again for each caption that a search passes
by would take many times as long. On SQLite the index is brought up to date in larger pieces, by whoever dispatches,
when a job ends and now and then while it runs: beside each chunk it would take three times as long, within the one
transaction that all others wait for.
"""

import json
import string

from sqlalchemy import Connection, text

from schemas.database import Database

TABLE = "caption_search"
_SIGNS, _SPACES = string.punctuation.replace("'", "''"), " " * len(string.punctuation)
_PLAIN = f"translate(caption, '{_SIGNS}', '{_SPACES}')"
"""PostgreSQL takes words with a hyphen, a slash or a dot between them for one, and does not find them side by side."""
CREATE = {
    "sqlite": [
        f"""CREATE VIRTUAL TABLE {TABLE}
            USING fts5(caption, content='annotations', content_rowid='id', tokenize='porter unicode61')""",
        f"INSERT INTO {TABLE} ({TABLE}) VALUES ('rebuild')",
    ],
    "postgresql": [
        f"""ALTER TABLE annotations
            ADD COLUMN {TABLE} tsvector GENERATED ALWAYS AS (to_tsvector('english', {_PLAIN})) STORED""",
        f"CREATE INDEX ix_{TABLE} ON annotations USING gin ({TABLE})",
    ],
}
DROP = {"sqlite": f"DROP TABLE {TABLE}", "postgresql": f"ALTER TABLE annotations DROP COLUMN {TABLE}"}
"""With the column, its index goes."""

AT_ONCE = 5_000
"""Captions in one transaction: for a tenth of a second nobody else writes."""
_ADD = text(
    f"""INSERT INTO {TABLE} (rowid, caption)
        SELECT id, caption FROM annotations WHERE id > :last ORDER BY id LIMIT :most"""
)
# the index has no captions of its own: it must be told which words go, and nothing of what it never had
_REMOVE = text(
    f"""INSERT INTO {TABLE} ({TABLE}, rowid, caption)
        SELECT 'delete', id, caption FROM annotations
        WHERE id IN (SELECT value FROM json_each(:ids)) AND id IN (SELECT id FROM {TABLE}_docsize)"""
)
# SQLite numbers annotations in the order in which they are committed, since writers go one by one
_LAST = text(f"SELECT COALESCE(MAX(id), 0) FROM {TABLE}_docsize")


def index_captions(database: Database, at_once: int = AT_ONCE) -> int:
    """Take captions that are new into the index, and say how many: fewer than `at_once` when it is up to date."""
    if not database.is_sqlite:
        return 0
    newest = text("SELECT COALESCE(MAX(id), 0) FROM annotations")
    with database.read() as connection:
        if connection.execute(newest).scalar_one() <= connection.execute(_LAST).scalar_one():
            return 0
    with database.write() as connection:
        last = connection.execute(_LAST).scalar_one()
        return connection.execute(_ADD, {"last": last, "most": at_once}).rowcount


def unindex_captions(connection: Connection, annotation_ids: list[int]) -> None:
    """Take captions out of the index, before their annotations are deleted. PostgreSQL does so by itself."""
    if connection.dialect.name == "sqlite":
        connection.execute(_REMOVE, {"ids": json.dumps(annotation_ids)})
