"""Phrases have scores, and a box's is no longer the joint probability of its two tokens but their geometric mean."""

import math
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # not in a batch: on SQLite that may copy the table, which would lose its WITHOUT ROWID
    op.add_column("entities", sa.Column("score", sa.Double(), nullable=True, comment="of its phrase"))
    if op.get_context().dialect.name == "sqlite":
        driver: Any = op.get_bind().connection.driver_connection
        driver.create_function("sqrt", 1, math.sqrt, deterministic=True)  # SQLite's own is left out of some builds
    op.execute("UPDATE boxes SET score = sqrt(score) WHERE score IS NOT NULL")


def downgrade() -> None:
    op.execute("UPDATE boxes SET score = score * score WHERE score IS NOT NULL")
    op.drop_column("entities", "score")
