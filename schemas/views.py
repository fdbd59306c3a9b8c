"""The public views: what people query. Names and columns are stable; new columns come at the end.

Views are code, not data: every migration drops them first and makes them anew afterwards, as they are at the version
that it arrives at.
"""

from schemas.version import HEAD

ADDED = {"groundings": (("0002", "e.score AS phrase_score"),)}
"""The columns that came after the first version, with the version that brought them: at the end, in this order."""

TIME = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', {0}, 'unixepoch')",
    "postgresql": "to_timestamp({0})",
}
NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)",
}
LATER = {"sqlite": "MAX({0}, {1})", "postgresql": "GREATEST({0}, {1})"}
PIXEL = {"sqlite": "CAST({0} + 0.5 AS INTEGER)", "postgresql": "CAST(FLOOR({0} + 0.5) AS INTEGER)"}
"""The nearest pixel, halves up: PostgreSQL's own rounding takes them to the even one, and cell centres are halves."""


def view_statements(dialect: str, version: str = HEAD) -> dict[str, str]:
    """The views by name, each as its SELECT, for `sqlite` or `postgresql`, at a version of the schema."""
    time, pixel = TIME[dialect].format, PIXEL[dialect].format
    seconds = LATER[dialect].format(f"COALESCE(j.finished_at, {NOW[dialect]}) - j.started_at", "0.001")
    return {
        "captions": f"""
            SELECT j.name AS job, i.id AS image_id, a.id AS annotation_id, i.uri AS uri, r.task AS task,
                   r.prompt AS prompt, a.caption AS caption, a.raw_text AS raw_text, a.finish_reason AS finish_reason,
                   a.tokens AS tokens, a.mean_logprob AS mean_logprob, c.width AS width, c.height AS height,
                   c.sha256 AS sha256, r.model AS model, r.revision AS model_revision, o.reused AS reused,
                   {time("a.created_at")} AS created_at
            FROM outcomes o
            JOIN jobs j ON j.id = o.job_id
            JOIN images i ON i.id = o.image_id
            JOIN annotations a ON a.id = o.annotation_id
            JOIN recipes r ON r.id = a.recipe_id
            JOIN contents c ON c.id = a.content_id
            WHERE NOT o.superseded""",
        "groundings": f"""
            SELECT j.name AS job, i.id AS image_id, a.id AS annotation_id, i.uri AS uri, r.task AS task,
                   a.caption AS caption, e.ordinal AS entity, e.phrase AS phrase, e.phrase_norm AS phrase_norm,
                   e.span_start AS span_start, e.span_end AS span_end, b.ordinal AS box,
                   b.x1 AS x1, b.y1 AS y1, b.x2 AS x2, b.y2 AS y2,
                   {pixel("b.x1 * c.width")} AS px1, {pixel("b.y1 * c.height")} AS py1,
                   {pixel("b.x2 * c.width")} AS px2, {pixel("b.y2 * c.height")} AS py2,
                   b.area AS area, b.score AS score, b.valid AS valid{_added("groundings", version)}
            FROM boxes b
            JOIN entities e ON e.annotation_id = b.annotation_id AND e.ordinal = b.entity
            JOIN annotations a ON a.id = b.annotation_id
            JOIN recipes r ON r.id = a.recipe_id
            JOIN contents c ON c.id = a.content_id
            JOIN outcomes o ON o.annotation_id = a.id
            JOIN jobs j ON j.id = o.job_id
            JOIN images i ON i.id = o.image_id
            WHERE NOT o.superseded""",
        "failures": f"""
            SELECT j.name AS job, i.id AS image_id, i.uri AS uri, r.task AS task, o.code AS code, o.message AS message,
                   o.tries AS tries, {time("o.settled_at")} AS failed_at
            FROM outcomes o
            JOIN jobs j ON j.id = o.job_id
            JOIN images i ON i.id = o.image_id
            JOIN recipes r ON r.id = o.recipe_id
            WHERE o.code IS NOT NULL AND NOT o.superseded AND NOT o.retrying""",
        "progress": f"""
            SELECT j.name AS job, j.state AS state, j.images AS images, j.recipes AS recipes, j.annotated AS annotated,
                   j.reused AS reused, j.failed AS failed,
                   j.images * j.recipes - j.annotated - j.reused - j.failed AS pending,
                   {time("j.started_at")} AS started_at, {time("j.finished_at")} AS finished_at,
                   (j.annotated + j.reused + j.failed - j.settled_before) / ({seconds}) / j.recipes AS images_per_s
            FROM jobs j""",
    }


def _added(view: str, version: str) -> str:
    return "".join(f", {column}" for since, column in ADDED[view] if since <= version)
