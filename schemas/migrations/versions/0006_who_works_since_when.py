"""Since when a worker has had its chunk, and what of a job somebody was told."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # not in batches: on SQLite these may copy a table, which would take hours where there are many chunks
    op.add_column("chunks", sa.Column("claimed_at", sa.Double(), comment="since when that worker has had it"))
    op.add_column("jobs", sa.Column("announced", sa.Text(), comment="the end or pause that was last told: --notify"))


def downgrade() -> None:
    op.drop_column("jobs", "announced")
    op.drop_column("chunks", "claimed_at")
