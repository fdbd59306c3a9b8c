"""Jobs say where their local files lie, and what is ready or queued is found without a walk over what is not."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

COMMENT = "JSON: the folders whose local files may be read; null: any, as in older jobs"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("roots", sa.Text(), nullable=True, comment=COMMENT))
    _index("ix_chunks_ready", ["job_id", "retry_at", "id"], "state = 'pending'")
    _index("ix_chunks_queued", ["queued_at"], "state = 'queued'")


def downgrade() -> None:
    op.drop_index("ix_chunks_queued", "chunks")
    op.drop_index("ix_chunks_ready", "chunks")
    op.drop_column("jobs", "roots")


def _index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "chunks", columns, postgresql_where=where, sqlite_where=where)
