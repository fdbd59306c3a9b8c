"""The public views: what people query. Names and columns are stable; new columns come at the end.

Views are code, not data: every migration drops them first and makes them anew afterwards, as they are at the version
that it arrives at. What their columns mean is in schemas/meanings.py.
"""

from schemas.relations import RELATIONS, relation
from schemas.trust import trust
from schemas.version import HEAD

EDGES = {"x1": "width", "y1": "height", "x2": "width", "y2": "height"}
BELIEF = ("presence", "agreement", "mirror_agreement", "naming", "plausibility", "doubts", "evidence")
ADDED = {
    "captions": (
        ("0005", "EXP(a.mean_logprob) AS score"),
        ("0005", "(SELECT n.value FROM inputs n WHERE n.hash = a.input) AS input"),
        *(("0005", f"a.{name} AS {name}") for name in ("absent_phrase", "yes_bias", "absent_score")),
    ),
    "failures": (("0005", "(SELECT n.value FROM inputs n WHERE n.hash = o.input) AS input"),),
    "groundings": (
        ("0002", "e.score AS phrase_score"),
        ("0004", "e.head AS head"),
        *(("0005", f"b.expected_{edge} AS expected_{edge}") for edge in EDGES),
        *(("0005", f"b.sigma_{edge} * c.{side} AS sigma_p{edge}") for edge, side in EDGES.items()),
        *(("0005", f"b.{name} AS {name}") for name in BELIEF),
        ("0005", f"{trust('b', 'r')} AS trust"),
    ),
}
"""The columns that came after the first version, with the version that brought them: at the end, in this order."""
SINCE = {"relations": "0004", "cooccurrences": "0004"}
"""The views that came after the first version."""

TIME = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', {0}, 'unixepoch')",
    "postgresql": "to_timestamp({0})",
}
NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)",
}
GREATER = {"sqlite": "MAX({0}, {1})", "postgresql": "GREATEST({0}, {1})"}
LESSER = {"sqlite": "MIN({0}, {1})", "postgresql": "LEAST({0}, {1})"}
PIXEL = {"sqlite": "CAST({0} + 0.5 AS INTEGER)", "postgresql": "CAST(FLOOR({0} + 0.5) AS INTEGER)"}
"""The nearest pixel, halves up: PostgreSQL's own rounding takes them to the even one, and cell centres are halves."""


def view_statements(dialect: str, version: str = HEAD) -> dict[str, str]:
    """The views by name, each as its SELECT, for `sqlite` or `postgresql`, at a version of the schema."""
    time, pixel = TIME[dialect].format, PIXEL[dialect].format
    seconds = GREATER[dialect].format(f"COALESCE(j.finished_at, {NOW[dialect]}) - j.started_at", "0.001")
    shared = " * ".join(_common(dialect, side) for side in "xy")
    prompt = "r.prompt" if version < "0005" else "COALESCE(a.prompt, r.prompt)"
    related = ", ".join(f"{relation(name, 'b', 'c')} AS {name}" for name in RELATIONS)
    views = {
        "captions": f"""
            SELECT j.name AS job, i.id AS image_id, a.id AS annotation_id, i.uri AS uri, r.task AS task,
                   {prompt} AS prompt, a.caption AS caption, a.raw_text AS raw_text, a.finish_reason AS finish_reason,
                   a.tokens AS tokens, a.mean_logprob AS mean_logprob, c.width AS width, c.height AS height,
                   c.sha256 AS sha256, r.model AS model, r.revision AS model_revision, o.reused AS reused,
                   {time("a.created_at")} AS created_at{_added("captions", version)}
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
                   o.tries AS tries, {time("o.settled_at")} AS failed_at{_added("failures", version)}
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
        "relations": f"""
            SELECT j.name AS job, i.id AS image_id, a.id AS annotation_id, i.uri AS uri, r.task AS task,
                   e.ordinal AS entity, b.ordinal AS box,
                   e.phrase AS phrase, e.phrase_norm AS phrase_norm, e.head AS head, b.score AS score, b.area AS area,
                   f.ordinal AS other_entity, c.ordinal AS other_box, f.phrase AS other_phrase,
                   f.phrase_norm AS other_norm, f.head AS other_head, c.score AS other_score, c.area AS other_area,
                   {related},
                   CASE WHEN b.area + c.area > 0 THEN {shared} / (b.area + c.area - {shared}) ELSE 0 END AS iou
            FROM entities e
            JOIN boxes b ON b.annotation_id = e.annotation_id AND b.entity = e.ordinal
            JOIN entities f ON f.annotation_id = e.annotation_id
            JOIN boxes c ON c.annotation_id = f.annotation_id AND c.entity = f.ordinal
            JOIN annotations a ON a.id = e.annotation_id
            JOIN recipes r ON r.id = a.recipe_id
            JOIN outcomes o ON o.annotation_id = a.id
            JOIN jobs j ON j.id = o.job_id
            JOIN images i ON i.id = o.image_id
            WHERE NOT o.superseded AND b.valid AND c.valid AND NOT (e.ordinal = f.ordinal AND b.ordinal = c.ordinal)""",
        "cooccurrences": """
            SELECT p.job AS job, p.phrase_norm AS phrase_norm, p.other_norm AS other_norm, p.together AS images,
                   m.images AS phrase_images, n.images AS other_images,
                   LN(CAST(1.0 * p.together * t.images / (1.0 * m.images * n.images) AS DOUBLE PRECISION))
                   / LN(CAST(2.0 AS DOUBLE PRECISION)) AS pmi
            FROM (SELECT o.job_id AS job_id, j.name AS job, e.phrase_norm AS phrase_norm, f.phrase_norm AS other_norm,
                         COUNT(DISTINCT o.image_id) AS together
                  FROM entities e
                  JOIN entities f ON f.annotation_id = e.annotation_id AND f.phrase_norm <> e.phrase_norm
                  JOIN outcomes o ON o.annotation_id = e.annotation_id
                  JOIN jobs j ON j.id = o.job_id
                  WHERE NOT o.superseded
                  GROUP BY o.job_id, j.name, e.phrase_norm, f.phrase_norm) p
            JOIN (SELECT o.job_id AS job_id, e.phrase_norm AS phrase_norm, COUNT(DISTINCT o.image_id) AS images
                  FROM entities e JOIN outcomes o ON o.annotation_id = e.annotation_id
                  WHERE NOT o.superseded
                  GROUP BY o.job_id, e.phrase_norm) m ON m.job_id = p.job_id AND m.phrase_norm = p.phrase_norm
            JOIN (SELECT o.job_id AS job_id, e.phrase_norm AS phrase_norm, COUNT(DISTINCT o.image_id) AS images
                  FROM entities e JOIN outcomes o ON o.annotation_id = e.annotation_id
                  WHERE NOT o.superseded
                  GROUP BY o.job_id, e.phrase_norm) n ON n.job_id = p.job_id AND n.phrase_norm = p.other_norm
            JOIN (SELECT o.job_id AS job_id, COUNT(DISTINCT o.image_id) AS images
                  FROM outcomes o WHERE o.annotation_id IS NOT NULL AND NOT o.superseded
                  GROUP BY o.job_id) t ON t.job_id = p.job_id""",
    }
    return {name: statement for name, statement in views.items() if SINCE.get(name, "") <= version}


def _common(dialect: str, side: str) -> str:
    """How long the boxes b and c have a side in common."""
    ends = LESSER[dialect].format(f"b.{side}2", f"c.{side}2")
    starts = GREATER[dialect].format(f"b.{side}1", f"c.{side}1")
    return GREATER[dialect].format(f"{ends} - {starts}", "0")


def _added(view: str, version: str) -> str:
    return "".join(f", {column}" for since, column in ADDED[view] if since <= version)
