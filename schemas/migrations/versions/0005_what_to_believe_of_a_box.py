"""How far to believe a box, prompts that differ from image to image, and canaries."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

EDGES = ("x1", "y1", "x2", "y2")
COMMENTS = {
    "expected_x1": "where the edge's distribution puts it, as a fraction of the image",
    "sigma_x1": "the edge's uncertainty from the entropy, as a fraction of the image",
    "presence": "the probability of a box for the phrase on its own",
    "agreement": "IoU with the best box for the phrase on its own",
    "mirror_agreement": "the same on the mirrored image",
    "naming": "the probability that the model gives the phrase's words as what the box is",
    "doubts": "what makes it implausible, with commas between",
    "evidence": "what trust is before calibration",
}
BOXES = (
    *(f"expected_{edge}" for edge in EDGES),
    *(f"sigma_{edge}" for edge in EDGES),
    *("presence", "agreement", "mirror_agreement", "naming", "plausibility", "doubts", "evidence"),
)
ANNOTATIONS = {
    "prompt": (sa.Text, "null where it is the recipe's, to which the item brought nothing"),
    "absent_phrase": (sa.Text, "what was asked for though it is not there"),
    "yes_bias": (sa.REAL, "the probability that the model boxes it all the same"),
    "absent_score": (sa.REAL, "of the box that it gave"),
}


def upgrade() -> None:
    # not in batches: on SQLite these may copy a table, which would lose its WITHOUT ROWID
    comment = "how its boxes are verified: see schemas/recipes.py"
    op.add_column("recipes", sa.Column("verify", sa.Text(), nullable=False, server_default="", comment=comment))
    for name, (kind, about) in ANNOTATIONS.items():
        op.add_column("annotations", sa.Column(name, kind(), comment=about))
    for name in BOXES:
        kind = sa.Text if name == "doubts" else sa.REAL
        op.add_column("boxes", sa.Column(name, kind(), comment=COMMENTS.get(name)))
    _inputs()
    _calibrations()
    _canaries()


def _inputs() -> None:
    op.create_table(
        "inputs",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False, comment="what an item brought to a recipe's prompt"),
        sa.PrimaryKeyConstraint("hash", name="pk_inputs"),
        sqlite_with_rowid=False,
    )


def _calibrations() -> None:
    op.create_table(
        "calibrations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("verify", sa.Text(), nullable=False),
        sa.Column("truth", sa.Text(), nullable=False, comment="sha256 of the data that it was fitted on"),
        sa.Column(
            "report", sa.Text(), nullable=False, comment="JSON: how many boxes, AUROC, ECE, the reliability diagram"
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calibrations"),
        sa.UniqueConstraint("model", "revision", "task", "verify", name="uq_calibrations_identity"),
    )
    op.create_table(
        "calibration_knots",
        sa.Column("calibration_id", sa.Integer(), nullable=False),
        sa.Column("evidence", sa.Double(), nullable=False, comment="from here to the next one; the first is 0"),
        sa.Column("trust", sa.Double(), nullable=False, comment="here"),
        sa.Column("slope", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["calibration_id"], ["calibrations.id"], name="fk_calibration_knots_calibration_id"),
        sa.PrimaryKeyConstraint("calibration_id", "evidence", name="pk_calibration_knots"),
        sqlite_with_rowid=False,
    )


def _canaries() -> None:
    op.create_table(
        "canaries",
        sa.Column("recipe_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token_ids", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("logprobs", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("raw_text", sa.Text(), nullable=False),
        sa.Column("runtime", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipes.id"], name="fk_canaries_recipe_id"),
        sa.PrimaryKeyConstraint("recipe_id", "number", name="pk_canaries"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("canaries", "calibration_knots", "calibrations", "inputs"):
        op.drop_table(table)
    for name in reversed(BOXES):
        op.drop_column("boxes", name)
    for name in reversed(ANNOTATIONS):
        op.drop_column("annotations", name)
    op.drop_column("recipes", "verify")
