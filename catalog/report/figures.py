"""The numbers of a job's report, each by one question to the database, alike on SQLite and PostgreSQL.

They count what the public views show: an annotation once for every image of the job that has it, and superseded
versions not at all.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from catalog.queries import progress_of, recipes_of, require_job
from catalog.reader import Reader
from catalog.report.facts import BoxFacts, CaptionFacts, FailureFacts, Figures, JobFacts, Named, Pair, Rate
from schemas.grounding import GRID
from schemas.trust import trust
from schemas.views import NOW

SCORE_BINS = 20
AREAS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Where the classes of areas end, each of which begins with the end before: fractions of the picture."""
TOP, PAIRS, PAIRED = 20, 15, 100
"""Phrases and pairs that are shown; pairs are looked for among so many phrases."""
FEW_IMAGES, TOGETHER = 500, (2, 5)
"""In how many images a pair must be: in small jobs, and in those of more images."""
EXAMPLES = 3
MOST_BINS = 60
WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800)

_OF_JOB = "o.job_id = :job AND NOT o.superseded"
_FLOOR = {"sqlite": "CAST({0} AS INTEGER)", "postgresql": "CAST(FLOOR({0}) AS INTEGER)"}
_CEILING = {
    "sqlite": "(CAST({0} AS INTEGER) + ({0} > CAST({0} AS INTEGER)))",
    "postgresql": "CAST(CEIL({0}) AS INTEGER)",
}
"""Of numbers from 0 up."""
_BYTEWISE = {"sqlite": "COLLATE BINARY", "postgresql": 'COLLATE "C"'}
"""The one order of texts that both databases know."""


def figures_of(reader: Reader, name: str, told: Callable[[str], None] = lambda _: None) -> Figures:
    """The figures of a job; `told` hears what is being counted. Raises UsageError for a job that there is not."""
    require_job(reader, name)
    count = _Count(reader, name)
    told("failures")
    failures = count.failures()
    told("rate")
    rate = count.rate()
    told("captions")
    captions = count.captions()
    told("phrases")
    phrases = count.named("phrase_norm", PAIRED)
    told("heads")
    heads = count.named("head", TOP)
    told("pairs")
    together = TOGETHER[count.annotated_images > FEW_IMAGES]
    pairs = count.pairs(phrases, together)
    told("boxes")
    boxes = count.boxes()
    told("scores of phrases")
    phrase_scores, unscored = count.phrase_scores()
    told("trust in boxes")
    trust, untrusted = count.trust()
    told("where boxes fall")
    heat = count.heat()
    return Figures(
        job=count.job,
        annotated_images=count.annotated_images,
        failures=failures,
        rate=rate,
        captions=captions,
        phrases=phrases[:TOP],
        heads=heads,
        pairs=pairs,
        together=together,
        boxes=boxes,
        phrase_scores=phrase_scores,
        unscored_phrases=unscored,
        trust=trust,
        untrusted=untrusted,
        heat=heat,
    )


STEPS = 10
"""How often `told` is called."""


class _Count:
    """The questions about one job."""

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self.job = job_facts(reader, name)
        ((images,),) = self._rows(f"SELECT COUNT(DISTINCT o.image_id) FROM outcomes o WHERE {_ANNOTATED}")
        self.annotated_images: int = images

    def failures(self) -> list[FailureFacts]:
        rows = self._rows(f"""
            SELECT f.code, f.number, i.uri, MIN(f.message) FROM (
                SELECT o.code, o.image_id, o.message, COUNT(*) OVER (PARTITION BY o.code) AS number,
                       DENSE_RANK() OVER (PARTITION BY o.code ORDER BY o.image_id) AS place
                FROM outcomes o WHERE {_OF_JOB} AND o.code IS NOT NULL AND NOT o.retrying) f
            JOIN images i ON i.id = f.image_id
            WHERE f.place <= {EXAMPLES} GROUP BY f.code, f.number, f.place, i.uri
            ORDER BY f.number DESC, f.code {self._bytewise}, f.place""")
        groups = groupby(rows, key=lambda row: (row[0], row[1]))
        return [FailureFacts(code, number, [(row[2], row[3]) for row in some]) for (code, number), some in groups]

    def rate(self) -> Rate:
        settled = f"FROM outcomes o WHERE {_OF_JOB} AND NOT o.retrying"
        ((first, last),) = self._rows(f"SELECT MIN(o.settled_at), MAX(o.settled_at) {settled}")
        width = next((w for w in WIDTHS_S if ((last or 0) - (first or 0)) / w < MOST_BINS - 1), 0)
        width = width or math.ceil((last - first) / WIDTHS_S[-1] / (MOST_BINS - 1)) * WIDTHS_S[-1]
        origin = math.floor((first or 0) / width) * width
        place = self._floor("(o.settled_at - :origin) / :width")
        rows = self._rows(
            f"""SELECT {place} AS place, SUM(CASE WHEN o.code IS NULL AND NOT o.reused THEN 1 ELSE 0 END),
                       SUM(CASE WHEN o.reused THEN 1 ELSE 0 END), SUM(CASE WHEN o.code IS NULL THEN 0 ELSE 1 END)
                {settled} GROUP BY 1""",
            origin=float(origin),
            width=float(width),
        )
        return Rate(origin, width, {row[0]: (row[1], row[2], row[3]) for row in rows})

    def captions(self) -> CaptionFacts:
        words: Counter[int] = Counter()
        tokens: Counter[int] = Counter()
        reasons: Counter[str] = Counter()
        query = f"""
            SELECT finish_reason, tokens, CASE WHEN said = '' THEN 0
                   ELSE LENGTH(said) - LENGTH(REPLACE(said, ' ', '')) + 1 END AS words, COUNT(*)
            FROM (SELECT a.finish_reason AS finish_reason, a.tokens AS tokens, {_SINGLE_SPACED} AS said
                  FROM outcomes o JOIN annotations a ON a.id = o.annotation_id WHERE {_ANNOTATED}
                  LIMIT {_ALL}) c
            GROUP BY 1, 2, 3"""
        signs = {"line": "\n", "tab": "\t", "carriage": "\r", "pair": " \1", "reversed": "\1 "}
        for reason, token_count, word_count, number in self._rows(query, **signs):
            reasons[reason] += number
            tokens[token_count] += number
            words[word_count] += number
        ((without,),) = self._rows(f"""
            SELECT COUNT(*) FROM outcomes o
            WHERE {_ANNOTATED} AND NOT EXISTS (SELECT 1 FROM boxes b WHERE b.annotation_id = o.annotation_id)""")
        return CaptionFacts(sum(words.values()), words, tokens, dict(reasons.most_common()), without)

    def named(self, column: str, most: int) -> list[Named]:
        rows = self._rows(f"""
            SELECT e.{column} AS words, COUNT(DISTINCT o.image_id) AS images, COUNT(*) AS times
            FROM outcomes o JOIN entities e ON e.annotation_id = o.annotation_id
            WHERE {_ANNOTATED} AND e.{column} <> ''
            GROUP BY e.{column} ORDER BY 2 DESC, 3 DESC, e.{column} {self._bytewise} LIMIT {most}""")
        return [Named(*row) for row in rows]

    def pairs(self, phrases: Sequence[Named], least: int) -> list[Pair]:
        """Those that are together in at least so many images, by PMI, as the view `cooccurrences` has it."""
        images = {phrase.words: phrase.images for phrase in phrases}
        among = self._reader.in_list("phrases")
        query = f"""
            SELECT e.phrase_norm, f.phrase_norm, COUNT(DISTINCT o.image_id)
            FROM outcomes o
            JOIN entities e ON e.annotation_id = o.annotation_id
            JOIN entities f ON f.annotation_id = e.annotation_id
            WHERE {_ANNOTATED} AND e.phrase_norm {among} AND f.phrase_norm {among}
                  AND e.phrase_norm {self._bytewise} < f.phrase_norm {self._bytewise}
            GROUP BY e.phrase_norm, f.phrase_norm HAVING COUNT(DISTINCT o.image_id) >= {least}"""
        rows = self._rows(query, phrases=list(images))
        pairs = [
            Pair(one, other, both, math.log2(both * self.annotated_images / (images[one] * images[other])))
            for one, other, both in rows
        ]
        return sorted(pairs, key=lambda pair: (-pair.pmi, -pair.images, pair.one, pair.other))[:PAIRS]

    def boxes(self) -> BoxFacts:
        """Grouped by one number for validity, score and area, as SQLite takes twice as long for three."""
        classes = " ".join(f"WHEN b.area < {end} THEN {number}" for number, end in enumerate(AREAS))
        score = f"COALESCE({self._floor(f'b.score * {SCORE_BINS}')}, {_UNSCORED})"
        packed = f"(CASE {classes} ELSE {len(AREAS)} END * 100 + {score}) * 2 + CASE WHEN b.valid THEN 1 ELSE 0 END"
        scores, areas, invalid = [0] * (_UNSCORED + 1), [0] * (len(AREAS) + 1), 0
        for key, number in self._rows(f"""
                SELECT {packed}, COUNT(*) FROM outcomes o JOIN boxes b ON b.annotation_id = o.annotation_id
                WHERE {_ANNOTATED} GROUP BY 1"""):
            rest, is_valid = divmod(key, 2)
            area, score_bin = divmod(rest, 100)
            if not is_valid:
                invalid += number
                continue
            areas[area] += number
            scores[score_bin] += number
        return BoxFacts(sum(areas), invalid, *_scored(scores), areas)

    def phrase_scores(self) -> tuple[list[int], int]:
        """By score, as those of boxes, and how many phrases have none."""
        scores = [0] * (_UNSCORED + 1)
        for score, number in self._rows(f"""
                SELECT COALESCE({self._floor(f"e.score * {SCORE_BINS}")}, {_UNSCORED}), COUNT(*)
                FROM outcomes o JOIN entities e ON e.annotation_id = o.annotation_id
                WHERE {_ANNOTATED} GROUP BY 1"""):
            scores[score] = number
        return _scored(scores)

    def trust(self) -> tuple[list[int], int]:
        """Valid boxes by trust, as by score, and how many have none."""
        counts = [0] * (_UNSCORED + 1)
        for place, number in self._rows(f"""
                SELECT COALESCE({self._floor(f"t.trust * {SCORE_BINS}")}, {_UNSCORED}), COUNT(*)
                FROM (SELECT {trust("b", "r")} AS trust FROM outcomes o
                      JOIN recipes r ON r.id = o.recipe_id
                      JOIN boxes b ON b.annotation_id = o.annotation_id
                      WHERE {_ANNOTATED} AND b.valid LIMIT {_ALL}) t
                GROUP BY 1"""):
            counts[place] = number
        return _scored(counts)

    def heat(self) -> list[list[int]]:
        """How many valid boxes lie on each cell of the grid, or on a part of it: rows from the top.

        The database counts the corners; what lies between them is summed up here, as in a summed-area table.
        """
        low = [self._floor(f"b.{side}1 * {GRID}") for side in "xy"]
        high = [_CEILING[self._reader.dialect].format(f"b.{side}2 * {GRID}") for side in "xy"]
        corners = ((1, "y1", "x1"), (-1, "y1", "x2"), (-1, "y2", "x1"), (1, "y2", "x2"))
        packed = f"(({low[0]} * 100 + {low[1]}) * 100 + {high[0]}) * 100 + {high[1]}"  # faster to group by than four
        parts = {
            "x1": "k / 1000000",
            "y1": "k / 10000 - k / 1000000 * 100",
            "x2": "k / 100 - k / 10000 * 100",
            "y2": "k - k / 100 * 100",
        }
        sums = " UNION ALL ".join(
            f"SELECT {parts[y]}, {parts[x]}, {sign} * SUM(n) FROM corners GROUP BY 1, 2" for sign, y, x in corners
        )
        rows = self._rows(f"""
            WITH corners AS (
                SELECT {packed} AS k, COUNT(*) AS n
                FROM outcomes o JOIN boxes b ON b.annotation_id = o.annotation_id
                WHERE {_ANNOTATED} AND b.valid GROUP BY 1)
            {sums}""")
        steps = [[0] * (GRID + 1) for _ in range(GRID + 1)]
        for y, x, number in rows:
            steps[min(max(y, 0), GRID)][min(max(x, 0), GRID)] += int(number)
        return list(_summed(steps))

    def _rows(self, query: str, **values: Any) -> Sequence[Sequence[Any]]:
        return self._reader.select(query, {"job": self.job.id, **values}).rows

    def _floor(self, number: str) -> str:
        return _FLOOR[self._reader.dialect].format(number)

    @property
    def _bytewise(self) -> str:
        return _BYTEWISE[self._reader.dialect]


_UNSCORED = SCORE_BINS + 1
"""The bin of those without a score, behind that of a score of 1."""
_ANNOTATED = f"{_OF_JOB} AND o.annotation_id IS NOT NULL"
_ALL = 2**63 - 1
"""A limit that is none keeps a database from working out a column again wherever it is named."""
_ONE_LINE = "REPLACE(REPLACE(REPLACE(a.caption, :line, ' '), :tab, ' '), :carriage, ' ')"
_SINGLE_SPACED = f"TRIM(REPLACE(REPLACE(REPLACE({_ONE_LINE}, ' ', :pair), :reversed, ''), :pair, ' '))"
"""A caption in which one space stands between two words: each has become two signs, of which one goes where they meet
again."""


def job_facts(reader: Reader, name: str) -> JobFacts:
    """The job of that name, which must be there."""
    (progress,) = progress_of(reader, name).records
    now = NOW[reader.dialect]
    ((id_, listing, started, finished, wall_s),) = reader.select(
        f"""SELECT id, listing, started_at, finished_at, COALESCE(finished_at, {now}) - started_at
            FROM jobs WHERE name = :name""",
        {"name": name},
    ).rows
    counts = {key: int(progress[key]) for key in ("images", "annotated", "reused", "failed", "pending")}
    return JobFacts(
        id=id_,
        name=name,
        state=progress["state"],
        reason=progress["reason"],
        sources=json.loads(listing).get("sources", []),
        recipes=recipes_of(reader, name),
        started_at=started,
        finished_at=finished,
        wall_s=wall_s,
        images_per_s=float(progress["images_per_s"]),
        **counts,
    )


def _scored(scores: Sequence[int]) -> tuple[list[int], int]:
    """Counts by score without what lies beyond the bins: a score of 1 goes into the last one, none is told apart."""
    return [*scores[: SCORE_BINS - 1], scores[SCORE_BINS - 1] + scores[SCORE_BINS]], scores[_UNSCORED]


def _summed(steps: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Rows of running sums along both sides, without the last row and column."""
    above = [0] * GRID
    for row in steps[:GRID]:
        running = 0
        for column in range(GRID):
            running += row[column]
            above[column] += running
        yield list(above)
