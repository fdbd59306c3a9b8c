# ruff: noqa: T201
"""How soon the catalog answers on millions of groundings, and how fast they are exported.

    python -m benchmarks.catalog [--groundings 10000000] [--db sqlite|postgresql|both|postgresql://…] [--draws 100]
                                 [--json FILE]

The archive is made up: two and a half groundings an image, phrases of an adjective and a noun drawn by Zipf's law,
boxes and scores at random. Each kind of question is asked with as many words as `--draws` says, drawn by the same law,
so that common words come often; each is asked once before it is timed. Times are from the call to the records in hand.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from benchmarks.scale.databases import Place, places
from benchmarks.scale.figures import keep, machine
from catalog.reader import Reader, open_reader
from catalog.records import records_of
from catalog.search import Search, find_page
from schemas.caption_search import AT_ONCE, CREATE, DROP, index_captions
from schemas.database import Database
from schemas.heads import head_of
from schemas.recipes import Recipe

NOUNS, ADJECTIVES, VERBS = 4_000, 60, 200
IMAGES_AT_ONCE = 50_000
START = (
    """INSERT INTO jobs (id, name, queue, state, listing, recipes, created_at, started_at, finished_at)
    VALUES (1, 'archive', 'q', 'finished', '{}', 1, 0, 0, 1)""",
    """INSERT INTO recipes (id, hash, task, prompt, model, revision, spec)
    VALUES (1, 'made up', 'brief', 'p', 'null', 'r', :spec)""",
    "INSERT INTO job_recipes VALUES (1, 1, 0)",
)
RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
PAGE = 50


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
    options.add_argument("--draws", type=int, default=100)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {"machine": machine(), "groundings": given.groundings}
    with (
        tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as folder,
        places(given.db, Path(folder)) as all_places,
    ):
        for place in all_places:
            found[place.kind] = measure(place, given.groundings, given.draws)
            keep(given.json, "catalog", found)
    for kind in ("sqlite", "postgresql"):
        for question, ms in found.get(kind, {}).get("questions", {}).items():
            print(f"{kind:10} {question:34} p50 {ms['p50']:8.1f} ms  p95 {ms['p95']:8.1f} ms  found {ms['found']:.1f}")


def measure(place: Place, groundings: int, draws: int) -> dict[str, Any]:
    """Make the archive on one database, and ask it."""
    with place.fresh() as url:
        print(f"catalog: making {groundings:,} groundings, {place.kind} ...", flush=True)
        began = time.monotonic()
        images = make(url, groundings)
        made_s = time.monotonic() - began
        print(f"catalog: {images:,} images in {made_s:.0f} s; asking ...", flush=True)
        with open_reader(url) as reader:
            asked = {name: ask(reader, question, draws) for name, question in questions().items()}
    return {"images": images, "made_s": made_s, "questions": asked}


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
        connection.execute(text("UPDATE jobs SET images = :n, annotated = :n"), {"n": images})
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
    low, high = random.uniform(0, 0.7, (total, 2)), random.uniform(0.05, 0.3, (total, 2))
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
            (x, y), (w, h), score = low[place].tolist(), high[place].tolist(), float(scores[place])
            entities.append((id_, ordinal, phrase, phrase, at, at + len(phrase), score, head_of(phrase)))
            boxes.append((id_, ordinal, 0, x, y, x + w, y + h, w * h, score, True))
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
        "outcomes": ("job_id image_id recipe_id annotation_id settled_at", [(1, id_, 1, id_, 0.0) for id_ in ids]),
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


def questions() -> dict[str, Callable[[np.random.Generator], Search]]:
    """Each kind of question, by what a person would call it."""

    def noun(random: np.random.Generator) -> str:
        return NOUN[random.choice(NOUNS, p=zipf(NOUNS))]

    def adjective(random: np.random.Generator) -> str:
        return ADJECTIVE[random.choice(ADJECTIVES, p=zipf(ADJECTIVES))]

    return {
        "head noun": lambda r: Search(phrases=(noun(r),)),
        "whole phrase": lambda r: Search(phrases=(f"{adjective(r)} {noun(r)}",)),
        "prefix, a word": lambda r: Search(phrases=(f"{adjective(r)} *",)),
        "prefix, a word and four letters": lambda r: Search(phrases=(f"{adjective(r)} {noun(r)[:4]}*",)),
        "full text, one word": lambda r: Search(text=noun(r)),
        "full text, two words": lambda r: Search(text=f"{noun(r)} {noun(r)}"),
        "full text, a prefix": lambda r: Search(text=f"{noun(r)[:5]}*"),
        "noun, score > 0.8": lambda r: Search(phrases=(noun(r),), min_score=0.8),
        "noun, score > 0.8, area > 0.06": lambda r: Search(phrases=(noun(r),), min_score=0.8, min_area=0.06),
        "two nouns": lambda r: Search(phrases=(noun(r), noun(r))),
        "noun, top left, job": lambda r: Search(phrases=(noun(r),), place="top-left", job="archive"),
        "word and noun": lambda r: Search(text=VERB[r.choice(VERBS, p=zipf(VERBS))], phrases=(noun(r),)),
        "noun left of noun": lambda r: Search(phrases=(noun(r),), relations=(("left_of", noun(r)),)),
        "noun near noun": lambda r: Search(phrases=(noun(r),), relations=(("near", noun(r)),)),
        "the job's images": lambda r: Search(job="archive"),
        "score > 0.9": lambda r: Search(min_score=0.9),
    }


def ask(reader: Reader, question: Callable[[np.random.Generator], Search], draws: int) -> dict[str, float]:
    """How long pages of 50 take, records included, in ms."""
    random = np.random.default_rng(7)
    taken, found = [], []
    for search in [question(random) for _ in range(draws)]:
        for timed in (False, True):
            began = time.perf_counter()
            page = find_page(reader, search, limit=PAGE)
            records = records_of(reader, page.hits, search.job)
            if timed:
                taken.append((time.perf_counter() - began) * 1000)
                found.append(len(records))
    return {
        "p50": float(np.percentile(taken, 50)),
        "p95": float(np.percentile(taken, 95)),
        "most": max(taken),
        "found": float(np.mean(found)),
    }


if __name__ == "__main__":
    main()
