# ruff: noqa: T201
"""How soon the catalog answers on millions of groundings, and how fast they are exported.

    python -m benchmarks.catalog [--groundings 10000000] [--db sqlite|postgresql|both|postgresql://…] [--draws 100]
                                 [--at URL ...] [--json FILE]

The archive is made up: two and a half groundings an image, phrases of an adjective and a noun drawn by Zipf's law,
boxes anywhere on the model's grid, scores at random; a thousandth of the images is in a second, small job. Each kind of
question is asked with as many words as `--draws` says, drawn by the same law, so that common words come often; each is
asked once before it is timed. Times are from the call to the records in hand.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import make_url, text

from benchmarks.scale.databases import places, settings_of, size_of
from benchmarks.scale.figures import keep, machine
from benchmarks.scale.markdown import DATABASES, number, table
from catalog.reader import Reader, open_reader
from catalog.records import records_of
from catalog.search import Search, find_page
from schemas.caption_search import AT_ONCE, CREATE, DROP, index_captions
from schemas.database import Database
from schemas.grounding import GRID
from schemas.heads import head_of
from schemas.migrations import upgrade
from schemas.recipes import Recipe

NOUNS, ADJECTIVES, VERBS = 4_000, 60, 200
IMAGES_AT_ONCE = 50_000
START = (
    """INSERT INTO jobs (id, name, queue, state, listing, recipes, created_at, started_at, finished_at)
    VALUES (1, 'archive', 'q', 'finished', '{}', 1, 0, 0, 1), (2, 'sample', 'q', 'finished', '{}', 1, 0, 0, 1)""",
    """INSERT INTO recipes (id, hash, task, prompt, model, revision, spec)
    VALUES (1, 'made up', 'brief', 'p', 'null', 'r', :spec)""",
    "INSERT INTO job_recipes VALUES (1, 1, 0), (2, 1, 0)",
)
RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
PAGE = 50
SAMPLED = 1_000
"""Of so many images one is in a second job as well."""


def words(kind: str, count: int) -> list[str]:
    """Made-up words that nothing stems: of consonants and vowels, all different."""
    syllables = [a + b for a in "bdfgklmnprtv" for b in "aeiou"]
    made = ("".join(parts) for length in (2, 3) for parts in itertools.product(syllables, repeat=length))
    return [f"{word}{kind}" for word in itertools.islice(made, count)]


def zipf(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Zipf's law over so many words."""
    weights = 1 / np.arange(1, count + 1)
    return weights / weights.sum()


NOUN, ADJECTIVE, VERB = words("k", NOUNS), words("t", ADJECTIVES), words("m", VERBS)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--groundings", type=int, default=10_000_000)
    options.add_argument("--db", default="both")
    options.add_argument("--at", nargs="+", metavar="URL", help="databases to keep: filled where they are empty")
    options.add_argument("--draws", type=int, default=100)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {"machine": machine(), "groundings": given.groundings}
    for url in given.at or ():
        found[make_url(url).get_backend_name()] = measure(url, given.groundings, given.draws)
    with (
        tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as folder,
        places(given.db, Path(folder)) if not given.at else nullcontext([]) as all_places,
    ):
        for place in all_places:
            with place.fresh() as url:
                found[place.kind] = measure(url, given.groundings, given.draws)
    keep(given.json, "catalog", found)
    print("\n".join(["", f"`{found['machine']['command']}`", "", *tables(found)]))


def measure(url: str, groundings: int, draws: int) -> dict[str, Any]:
    """Make the archive in a database, unless it is there, and ask it."""
    database = Database(url)
    upgrade(database)
    with database.read() as connection:
        images = int(connection.execute(text("SELECT COALESCE(MAX(images), 0) FROM jobs")).scalar_one())
    database.close()
    if not images:
        print(f"catalog: making {groundings:,} groundings in {database} ...", file=sys.stderr, flush=True)
        images = make(url, groundings)
    print(f"catalog: asking {database} ...", file=sys.stderr, flush=True)
    with open_reader(url) as reader:
        asked = {name: ask(reader, question, draws) for name, question in questions().items()}
    return {"images": images, "settings": settings_of(url), "bytes": size_of(url), "questions": asked}


def make(url: str, groundings: int) -> int:
    """Fill a database with a job's finished work; how many images it has."""
    database = Database(url)
    with database.write() as connection:
        for statement in START:
            connection.execute(text(statement), {"spec": RECIPE.canonical})
        if not database.is_sqlite:
            connection.execute(text(DROP["postgresql"]))
    images, made, random = 0, 0, np.random.default_rng(5)
    while made < groundings:
        rows = batch(random, images, groundings - made)
        with database.write() as connection:
            for table, (columns, values) in rows.items():
                add(connection, table, columns, values)
        images += len(rows["images"][1])
        made += len(rows["boxes"][1])
    with database.write() as connection:
        for job, count in ((1, images), (2, images // SAMPLED)):
            filled = "UPDATE jobs SET images = :n, annotated = :n WHERE id = :job"
            connection.execute(text(filled), {"n": count, "job": job})
    if database.is_sqlite:
        while index_captions(database) == AT_ONCE:
            pass
    else:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in (*CREATE["postgresql"], "VACUUM ANALYZE"):
                connection.execute(text(statement))
    database.close()
    return images


def batch(random: np.random.Generator, first: int, most: int) -> dict[str, tuple[str, list[tuple[Any, ...]]]]:
    """The rows of so many images."""
    counts = 1 + random.binomial(3, 0.5, IMAGES_AT_ONCE)
    ends = np.cumsum(counts)
    images = int(np.searchsorted(ends, most, side="left")) + 1 if ends[-1] > most else IMAGES_AT_ONCE
    counts, total = counts[:images], int(counts[:images].sum())
    nouns = random.choice(NOUNS, total, p=zipf(NOUNS))
    adjectives = random.choice(ADJECTIVES, total, p=zipf(ADJECTIVES))
    verbs = random.choice(VERBS, images, p=zipf(VERBS))
    corner, size = (
        random.integers(0, 21, (total, 2)),
        random.integers(2, 11, (total, 2)),
    )  # in cells of the model's grid
    scores = random.beta(5, 2, total)
    ids = range(first + 1, first + images + 1)
    entities, boxes, annotations, place = [], [], [], 0
    for id_, count, verb in zip(ids, counts.tolist(), verbs.tolist(), strict=True):
        phrases = [f"{ADJECTIVE[adjectives[n]]} {NOUN[nouns[n]]}" for n in range(place, place + count)]
        caption = f"An image of a {' and a '.join(phrases)} that {VERB[verb]}."
        annotations.append((id_, id_, 1, caption, caption, "stop", 12, -0.5, "made up", 0.0))
        at = 0
        for ordinal, phrase in enumerate(phrases):
            at = caption.index(phrase, at)
            (x, y), (w, h), score = corner[place].tolist(), size[place].tolist(), float(scores[place])
            entities.append((id_, ordinal, phrase, phrase, at, at + len(phrase), score, head_of(phrase)))
            corners = ((x + 0.5) / GRID, (y + 0.5) / GRID, (x + w + 0.5) / GRID, (y + h + 0.5) / GRID)
            boxes.append((id_, ordinal, 0, *corners, w * h / GRID**2, score, True))
            at, place = at + len(phrase), place + 1
    return {
        "contents": ("id sha256 width height format size", [(id_, f"{id_:064x}", 640, 480, "JPEG", 99) for id_ in ids]),
        "images": (
            "id key uri version content_id",
            [(id_, id_.to_bytes(16, "big"), f"s3://archive/{id_ // 1000:05}/{id_:09}.jpg", "v", id_) for id_ in ids],
        ),
        "annotations": (
            "id content_id recipe_id caption raw_text finish_reason tokens mean_logprob runtime created_at",
            annotations,
        ),
        "entities": ("annotation_id ordinal phrase phrase_norm span_start span_end score head", entities),
        "boxes": ("annotation_id entity ordinal x1 y1 x2 y2 area score valid", boxes),
        "outcomes": (
            "job_id image_id recipe_id annotation_id settled_at",
            [(job, id_, 1, id_, 0.0) for id_ in ids for job in ((1,) if id_ % SAMPLED else (1, 2))],
        ),
    }


def add(connection: Any, table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
    names = columns.split()
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(names))
        driver.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows)
        return
    driver.execute("SET LOCAL session_replication_role = replica")  # no look-up for each foreign key
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


Question = Callable[[Reader], int]
"""Asks, and says how many rows have come."""


def page(**asked: Any) -> Question:
    """The first page of what `find` finds, with all that it shows."""
    search = Search(**asked)
    return lambda reader: len(records_of(reader, find_page(reader, search, limit=PAGE).hits, search.job))


def view(query: str, **values: Any) -> Question:
    """A person's SQL: a SELECT from a public view."""
    return lambda reader: len(reader.select(f"{query} LIMIT {PAGE}", values).rows)


def noun(random: np.random.Generator) -> str:
    return NOUN[random.choice(NOUNS, p=zipf(NOUNS))]


def adjective(random: np.random.Generator) -> str:
    return ADJECTIVE[random.choice(ADJECTIVES, p=zipf(ADJECTIVES))]


def verb(random: np.random.Generator) -> str:
    return VERB[random.choice(VERBS, p=zipf(VERBS))]


def questions() -> dict[str, Callable[[np.random.Generator], Question]]:
    """Each kind of question, by what a person would call it."""
    related = "SELECT * FROM relations WHERE head = :head AND other_head = :other AND left_of"
    return {
        "head noun": lambda r: page(phrases=(noun(r),)),
        "whole phrase": lambda r: page(phrases=(f"{adjective(r)} {noun(r)}",)),
        "prefix, a word": lambda r: page(phrases=(f"{adjective(r)} *",)),
        "prefix, a word and four letters": lambda r: page(phrases=(f"{adjective(r)} {noun(r)[:4]}*",)),
        "full text, one word": lambda r: page(text=noun(r)),
        "full text, two words": lambda r: page(text=f"{noun(r)} {noun(r)}"),
        "full text, a prefix": lambda r: page(text=f"{noun(r)[:5]}*"),
        "noun, score > 0.8": lambda r: page(phrases=(noun(r),), min_score=0.8),
        "noun, score > 0.8, area > 0.06": lambda r: page(phrases=(noun(r),), min_score=0.8, min_area=0.06),
        "noun, area < 0.004 (few boxes)": lambda r: page(phrases=(noun(r),), max_area=0.004),
        "noun, top left, job": lambda r: page(phrases=(noun(r),), place="top-left", job="archive"),
        "noun, small job": lambda r: page(phrases=(noun(r),), job="sample"),
        "two nouns": lambda r: page(phrases=(noun(r), noun(r))),
        "word and noun": lambda r: page(text=verb(r), phrases=(noun(r),)),
        "noun left of noun": lambda r: page(phrases=(noun(r),), relations=(("left_of", noun(r)),)),
        "noun near noun": lambda r: page(phrases=(noun(r),), relations=(("near", noun(r)),)),
        "the job's images": lambda r: page(job="archive"),
        "score > 0.9": lambda r: page(min_score=0.9),
        "`groundings` by head": lambda r: view("SELECT * FROM groundings WHERE head = :head", head=noun(r)),
        "`groundings` by phrase": lambda r: view(
            "SELECT * FROM groundings WHERE phrase_norm = :phrase", phrase=f"{adjective(r)} {noun(r)}"
        ),
        "`relations` by two heads": lambda r: view(related, head=noun(r), other=noun(r)),
    }


def ask(reader: Reader, draw: Callable[[np.random.Generator], Question], draws: int) -> dict[str, float]:
    """How long the answers take, in ms, and how many rows they have."""
    random = np.random.default_rng(7)
    taken, found = [], []
    for question in [draw(random) for _ in range(draws)]:
        question(reader)
        began = time.perf_counter()
        found.append(question(reader))
        taken.append((time.perf_counter() - began) * 1000)
    return {
        "p50": float(np.percentile(taken, 50)),
        "p95": float(np.percentile(taken, 95)),
        "most": max(taken),
        "found": float(np.mean(found)),
    }


def tables(found: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    kinds = [kind for kind in DATABASES if kind in found]
    head = ("question", *(f"{DATABASES[kind]} {part}, ms" for kind in kinds for part in ("p50", "p95", "most")), "rows")
    rows = [
        (
            question,
            *(number(found[kind]["questions"][question][part]) for kind in kinds for part in ("p50", "p95", "most")),
            number(found[kinds[0]]["questions"][question]["found"]),
        )
        for question in found[kinds[0]]["questions"]
    ]
    return list(table(head, rows))


if __name__ == "__main__":
    main()
