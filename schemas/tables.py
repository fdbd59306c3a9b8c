"""The tables. What each is for is said in DESIGN; what each column promises is said by its constraints.

Times are seconds since 1970 by the database's clock (`unix_now`), so that machines with other clocks agree on a lease.
"""

from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite gives rowids only to a column that is declared INTEGER.
BigId = BigInteger().with_variant(Integer(), "sqlite")


class unix_now(FunctionElement[float]):  # noqa: N801, it reads as a function in statements
    """Seconds since 1970 on the database's clock."""

    type = Double()
    inherit_cache = True


@compiles(unix_now, "sqlite")
def _unix_now_sqlite(element: unix_now, compiler: Any, **kwargs: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(unix_now, "postgresql")
def _unix_now_postgresql(element: unix_now, compiler: Any, **kwargs: Any) -> str:
    # not now(), which stands still for the length of a transaction, nor clock_timestamp(), for which no index is used
    return "CAST(EXTRACT(EPOCH FROM statement_timestamp()) AS double precision)"


JOB_STATES = ("running", "paused", "finished", "cancelled")
CHUNK_STATES = ("pending", "queued", "running", "done")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("queue", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, comment="why it is paused"),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("strict", Boolean, nullable=False, server_default=text("false")),
    Column(
        "listing", Text, nullable=False, comment="JSON: sources and options of the listing that `cursor` belongs to"
    ),
    Column("roots", Text, comment="JSON: the folders whose local files may be read; null: any, as in older jobs"),
    Column("cursor", Text, comment="where a cut-off listing goes on"),
    Column("listings", Integer, nullable=False, server_default="0", comment="how often it was listed to the end"),
    Column("listed_at", Double, comment="when the present listing reached its end"),
    Column("skipped", BigInteger, nullable=False, server_default="0", comment="names passed over by the listing"),
    Column("recipes", Integer, nullable=False),
    Column("images", BigInteger, nullable=False, server_default="0"),
    Column("annotated", BigInteger, nullable=False, server_default="0"),
    Column("reused", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    Column("source_faults", Integer, nullable=False, server_default="0", comment="in a row: the breaker's count"),
    Column("settled_before", BigInteger, nullable=False, server_default="0", comment="outcomes older than started_at"),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("announced", Text, comment="the end or pause that was last told: --notify"),
    _one_of("state", JOB_STATES),
)

recipes = Table(
    "recipes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", Text, nullable=False, unique=True, comment="the recipe's public id"),
    Column("task", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("spec", Text, nullable=False, comment="the canonical JSON"),
    Column(
        "verify", Text, nullable=False, server_default="", comment="how its boxes are verified: see schemas/recipes.py"
    ),
)

job_recipes = Table(
    "job_recipes",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("recipe_id", ForeignKey("recipes.id"), primary_key=True),
    Column("ordinal", Integer, nullable=False),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("recipe_ids", Text, comment="JSON list where a retry wants some recipes of the job only"),
    Column("item_list", Text, nullable=False, comment="see schemas/items.py"),
    Column("size", Integer, nullable=False, comment="how many items"),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("fence", Integer, nullable=False, server_default="0", comment="rises at every dispatch and release"),
    Column("crashes", Integer, nullable=False, server_default="0", comment="running leases that expired"),
    Column("tries", Integer, nullable=False, server_default="0", comment="attempts that each of its items has had"),
    Column("retry_at", Double, nullable=False, server_default="0"),
    Column("broker", Text, comment="the Redis that its message went to"),
    Column("queued_at", Double),
    Column("worker", Text, comment="who runs it"),
    Column("lease_until", Double),
    Column("claimed_at", Double, comment="since when that worker has had it"),
    _one_of("state", CHUNK_STATES),
    # all of them hold unfinished chunks only, and what is asked for often is one range of one of them. SQLite uses one
    # only where a statement says its condition word for word: see schemas/ledger/states.py
    Index(
        "ix_chunks_unfinished",
        "job_id",
        "state",
        "id",
        postgresql_where=text("state <> 'done'"),
        sqlite_where=text("state <> 'done'"),
    ),
    Index(
        "ix_chunks_ready",
        "job_id",
        "retry_at",
        "id",
        postgresql_where=text("state = 'pending'"),
        sqlite_where=text("state = 'pending'"),
    ),
    Index(
        "ix_chunks_queued",
        "queued_at",
        postgresql_where=text("state = 'queued'"),
        sqlite_where=text("state = 'queued'"),
    ),
    Index(
        "ix_chunks_lease",
        "lease_until",
        postgresql_where=text("state = 'running'"),
        sqlite_where=text("state = 'running'"),
    ),
)

contents = Table(
    "contents",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("sha256", Text, nullable=False, unique=True),
    Column("width", Integer, nullable=False, comment="upright, in pixels"),
    Column("height", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("size", BigInteger, nullable=False, comment="bytes"),
)

images = Table(
    "images",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("key", LargeBinary(16), nullable=False, unique=True, comment="hash of uri and version"),
    Column("uri", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("content_id", ForeignKey("contents.id"), comment="null while it could not be read"),
    # a hash index on PostgreSQL: a B-tree refuses URIs of more than some 2,700 bytes
    Index("ix_images_uri", "uri", postgresql_using="hash"),
    Index("ix_images_content_id", "content_id"),
)

annotations = Table(
    "annotations",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("content_id", ForeignKey("contents.id"), nullable=False),
    Column("recipe_id", ForeignKey("recipes.id"), nullable=False),
    Column("input", Text, nullable=False, server_default="", comment="hash of what the item brought to the template"),
    Column("caption", Text, nullable=False),
    Column("raw_text", Text, nullable=False),
    Column("finish_reason", Text, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("mean_logprob", Double),
    Column("runtime", Text, nullable=False, comment="device and library versions that did the work"),
    Column("created_at", Double, nullable=False),
    Column("prompt", Text, comment="null where it is the recipe's, to which the item brought nothing"),
    Column("absent_phrase", Text, comment="what was asked for though it is not there"),
    Column("yes_bias", REAL, comment="the probability that the model boxes it all the same"),
    Column("absent_score", REAL, comment="of the box that it gave"),
    UniqueConstraint("content_id", "recipe_id", "input", name="uq_annotations_identity"),
)

inputs = Table(
    "inputs",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("value", Text, nullable=False, comment="what an item brought to a recipe's prompt"),
    sqlite_with_rowid=False,
)

entities = Table(
    "entities",
    metadata,
    Column("annotation_id", ForeignKey("annotations.id"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("phrase", Text, nullable=False),
    Column("phrase_norm", Text, nullable=False),
    Column("span_start", Integer, nullable=False),
    Column("span_end", Integer, nullable=False),
    Column("score", Double, comment="of its phrase"),
    Column("head", Text, nullable=False, server_default="", comment="the phrase's head noun: see schemas/heads.py"),
    # with the annotation, so that what has a phrase comes in order; the operators are for prefixes, in any collation
    Index(
        "ix_entities_phrase_norm",
        "phrase_norm",
        "annotation_id",
        postgresql_ops={"phrase_norm": "text_pattern_ops"},
    ),
    Index("ix_entities_head", "head", "annotation_id"),
    sqlite_with_rowid=False,
)

boxes = Table(
    "boxes",
    metadata,
    Column("annotation_id", ForeignKey("annotations.id"), primary_key=True),
    Column("entity", Integer, primary_key=True, comment="the entity's ordinal"),
    Column("ordinal", Integer, primary_key=True),
    Column("x1", Double, nullable=False, comment="fractions of the upright image"),
    Column("y1", Double, nullable=False),
    Column("x2", Double, nullable=False),
    Column("y2", Double, nullable=False),
    Column("area", Double, nullable=False),
    Column("score", Double),
    Column("valid", Boolean, nullable=False),
    Column("expected_x1", REAL, comment="where the edge's distribution puts it, as a fraction of the image"),
    Column("expected_y1", REAL),
    Column("expected_x2", REAL),
    Column("expected_y2", REAL),
    Column("sigma_x1", REAL, comment="the edge's uncertainty from the entropy, as a fraction of the image"),
    Column("sigma_y1", REAL),
    Column("sigma_x2", REAL),
    Column("sigma_y2", REAL),
    Column("presence", REAL, comment="the probability of a box for the phrase on its own"),
    Column("agreement", REAL, comment="IoU with the best box for the phrase on its own"),
    Column("mirror_agreement", REAL, comment="the same on the mirrored image"),
    Column("naming", REAL, comment="the probability that the model gives the phrase's words as what the box is"),
    Column("plausibility", REAL),
    Column("doubts", Text, comment="what makes it implausible, with commas between"),
    Column("evidence", REAL, comment="what trust is before calibration"),
    sqlite_with_rowid=False,
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("verify", Text, nullable=False),
    Column("truth", Text, nullable=False, comment="sha256 of the data that it was fitted on"),
    Column("report", Text, nullable=False, comment="JSON: how many boxes, AUROC, ECE, the reliability diagram"),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("model", "revision", "task", "verify", name="uq_calibrations_identity"),
)

calibration_knots = Table(
    "calibration_knots",
    metadata,
    Column("calibration_id", ForeignKey("calibrations.id"), primary_key=True),
    Column("evidence", Double, primary_key=True, comment="from here to the next one; the first is 0"),
    Column("trust", Double, nullable=False, comment="here"),
    Column("slope", Double, nullable=False),
    sqlite_with_rowid=False,
)

canaries = Table(
    "canaries",
    metadata,
    Column("recipe_id", ForeignKey("recipes.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("token_ids", Text, nullable=False, comment="JSON"),
    Column("logprobs", Text, nullable=False, comment="JSON"),
    Column("raw_text", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("image_id", ForeignKey("images.id"), primary_key=True),
    Column("recipe_id", ForeignKey("recipes.id"), primary_key=True),
    Column("input", Text, primary_key=True, server_default=""),
    Column("annotation_id", ForeignKey("annotations.id")),
    Column("reused", Boolean, nullable=False, server_default=text("false")),
    Column("code", Text),
    Column("message", Text),
    Column("tries", Integer, nullable=False, server_default="1"),
    Column(
        "retrying", Boolean, nullable=False, server_default=text("false"), comment="a failure that `retry` has put back"
    ),
    Column("superseded", Boolean, nullable=False, server_default=text("false"), comment="the job has a newer version"),
    Column("settled_at", Double, nullable=False),
    CheckConstraint("(annotation_id IS NULL) <> (code IS NULL)", name="annotated_or_failed"),
    Index("ix_outcomes_annotation_id", "annotation_id"),
    Index("ix_outcomes_image_id", "image_id"),
    Index(
        "ix_outcomes_failed",
        "job_id",
        "code",
        "image_id",
        "recipe_id",
        postgresql_where=text("code IS NOT NULL"),
        sqlite_where=text("code IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)
