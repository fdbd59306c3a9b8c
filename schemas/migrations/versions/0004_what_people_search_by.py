"""Phrases are found by their head noun and by how they begin, captions by their words."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from schemas.caption_search import CREATE, DROP
from schemas.heads import head_of

revision = "0004"
down_revision = "0003"

PHRASES = "ix_entities_phrase_norm"
AT_ONCE = 10_000


def upgrade() -> None:
    connection = op.get_bind()
    comment = "the phrase's head noun: see schemas/heads.py"
    # not in a batch: on SQLite that may copy the table, which would lose its WITHOUT ROWID
    op.add_column("entities", sa.Column("head", sa.Text(), nullable=False, server_default="", comment=comment))
    heads = sa.text("UPDATE entities SET head = :head WHERE phrase_norm = :norm")
    for phrases in _phrases(connection):
        connection.execute(heads, [{"head": head_of(phrase), "norm": phrase} for phrase in phrases])
    op.drop_index(PHRASES, "entities")
    columns = ["phrase_norm", "annotation_id"]
    op.create_index(PHRASES, "entities", columns, postgresql_ops={"phrase_norm": "text_pattern_ops"})
    op.create_index("ix_entities_head", "entities", ["head", "annotation_id"])
    for statement in CREATE[connection.dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    op.execute(DROP[op.get_bind().dialect.name])
    op.drop_index("ix_entities_head", "entities")
    op.drop_index(PHRASES, "entities")
    op.create_index(PHRASES, "entities", ["phrase_norm"])
    op.drop_column("entities", "head")


def _phrases(connection: Any) -> Iterator[list[str]]:
    """The different phrases, in lists, each read whole before its rows are written."""
    query = sa.text("SELECT DISTINCT phrase_norm FROM entities WHERE phrase_norm > :last ORDER BY 1 LIMIT :most")
    last = ""
    while some := list(connection.execute(query, {"last": last, "most": AT_ONCE}).scalars()):
        yield some
        last = some[-1]
