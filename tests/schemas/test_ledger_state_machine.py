"""The ledger as a state machine on both databases, against a model in plain Python.

Several jobs share images, contents and recipes. Messages come late, twice or never; workers die, stop, finish.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from schemas.database import Database
from schemas.errors import Code
from schemas.grounding import Grounding
from schemas.inputs import Inputs, input_hash, pack_input
from schemas.items import Item, unpack_items
from schemas.ledger import dispatch, jobs, listing, retries, settlement, work
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Content, Failure, Later, Result, Reuse, Settled
from schemas.tables import chunks, images, metadata, outcomes
from schemas.tables import jobs as jobs_table

URIS = [f"s3://bucket/{name}" for name in "abcde"]
RECIPES = [Recipe(task=task, prompt=task, model="m", revision="r", dtype="d") for task in ("brief", "detailed")]
PHRASE = RECIPES[0].model_copy(update={"task": "phrase", "prompt": "{phrase}", "input": "phrase"})
JOBS = {"one": RECIPES[:1], "two": RECIPES, "three": RECIPES[1:], "four": [RECIPES[0], PHRASE]}
VALUES = ["", "a dog", "a cat"]
BROUGHT = {"": ""} | {input_hash(value): pack_input({"phrase": value}) for value in VALUES}
"""What an item brings, by the hash of it: as `retry` puts it back."""
WORKERS = ["w1", "w2"]
QUEUE = RECIPES[0].queue
NEVER = 10_000

Results = st.sampled_from(["annotated", "annotated", "annotated", "failed", "later"])


@dataclass
class Shown:
    """What a job shows of a URI under a recipe, for what an item brings to it."""

    version: str
    kind: str
    code: str | None = None


@dataclass
class JobModel:
    """A job as it should be."""

    recipes: dict[int, Recipe]
    state: str = "running"
    mentions: int = 0
    earlier: int = 0  # mentions whose outcome is that of another one
    listings: int = 0
    listed: bool = False
    listing: str = ""
    cursor: str | None = None
    shown: dict[tuple[str, int, str], Shown] = field(default_factory=dict)
    retrying: dict[tuple[str, int, str], str] = field(default_factory=dict)
    unsettled: Counter[tuple[str, str, str, tuple[int, ...]]] = field(default_factory=Counter)

    def brought(self, item: Item) -> dict[int, str]:
        """For each recipe the hash of what the item brings to it."""
        value = json.loads(item.input)["phrase"] if item.input else ""
        return {id_: input_hash(value) if recipe.input else "" for id_, recipe in self.recipes.items()}

    def is_shown(self, uri: str, version: str, item: Item) -> bool:
        keys = [(uri, recipe, brought) for recipe, brought in self.brought(item).items()]
        return all(
            (key in self.shown and self.shown[key].version == version) or self.retrying.get(key) == version
            for key in keys
        )


class LedgerMachine(RuleBasedStateMachine):
    """The real functions, and the model beside them."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.jobs: dict[str, JobModel] = {}
        self.ids: dict[str, int] = {}
        self.waiting: dict[str, listing.WaitingItems] = {}
        self.waiting_keys: dict[str, set[tuple[str, str]]] = {}
        self.now = dict.fromkeys(URIS, 1)
        self.contents: dict[tuple[str, str], str | None] = {}
        self.annotations: set[tuple[str, int, str]] = set()
        self.messages: list[dispatch.Departure] = []
        self.claims: list[work.Claim] = []
        self.fences: dict[int, int] = {}

    @initialize(name=st.sampled_from(list(JOBS)), chunk_size=st.integers(1, 3))
    def begin(self, name: str, chunk_size: int) -> None:
        """A job with work to do, or most steps would find nothing."""
        self.open_job(name, "all")
        self.register(name, [Item(uri, self.version(uri)) for uri in URIS], "0", recheck=False, chunk_size=chunk_size)

    # the world

    @rule(uri=st.sampled_from(URIS))
    def object_changes(self, uri: str) -> None:
        self.now[uri] += 1

    def version(self, uri: str) -> str:
        return f"v{self.now[uri]}"

    def sha256(self, uri: str, version: str) -> str:
        """Few contents for many images."""
        return f"content {(URIS.index(uri) + int(version[1:])) % 4}"

    # listing

    def open_job(self, name: str, words: str) -> None:
        job = jobs.open_job(self.database, name, JOBS[name], listing=words)
        self.ids[name] = job.id
        if name not in self.jobs:
            with self.database.read() as connection:
                self.jobs[name] = JobModel(jobs.recipes_of(connection, job.id), listing=words)
        model = self.jobs[name]
        if model.listed or model.listing != words:
            model.cursor = None
            model.listings = max(model.listings, 1) if model.mentions else 0
        model.state, model.listed, model.listing = "running", False, words
        assert (job.state, job.cursor, job.listings) == ("running", model.cursor, model.listings)
        self.waiting[name] = listing.waiting_items(self.database, job) if job.listings else listing.NONE_WAITING
        self.waiting_keys[name] = {(uri, brought) for uri, _, brought, _ in model.unsettled} if job.listings else set()

    @rule(data=st.data(), recheck=st.booleans(), chunk_size=st.integers(1, 3), goes_on=st.booleans())
    def list_some(self, data: st.DataObject, recheck: bool, chunk_size: int, goes_on: bool) -> None:
        name = data.draw(st.sampled_from(list(JOBS)))
        if not goes_on or name not in self.jobs or self.jobs[name].listed:
            self.open_job(name, data.draw(st.sampled_from(["all", "some"])))
        inputs = list(BROUGHT.values()) if name == "four" else [""]
        with_version = st.tuples(st.sampled_from(URIS), st.sampled_from([True, True, False]), st.sampled_from(inputs))
        drawn = data.draw(st.lists(with_version, max_size=6))
        some = [Item(uri, self.version(uri) if versioned else "", None, brought) for uri, versioned, brought in drawn]
        self.register(name, some, str(data.draw(st.integers(0, 99))), recheck=recheck, chunk_size=chunk_size)

    def register(self, name: str, some: list[Item], cursor: str, *, recheck: bool, chunk_size: int) -> None:
        job = jobs.get_job(self.database, self.ids[name])
        expected = self.expect_listing(name, some, recheck)
        registered = listing.register(
            self.database,
            job,
            some,
            cursor=cursor,
            chunk_size=chunk_size,
            recheck=recheck,
            waiting=self.waiting[name],
        )
        self.jobs[name].cursor = cursor
        assert registered == expected

    @precondition(lambda self: any(not job.listed for job in self.jobs.values()))
    @rule(data=st.data())
    def end_listing(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, job in self.jobs.items() if not job.listed]))
        listing.finish_listing(self.database, jobs.get_job(self.database, self.ids[name]))
        self.jobs[name].listed, self.jobs[name].cursor = True, None
        self.jobs[name].listings += 1

    def expect_listing(self, name: str, some: list[Item], recheck: bool) -> listing.Registered:
        job = self.jobs[name]
        new, reused, known, repeated = list[Item](), dict[Any, Item](), 0, 0
        for item in some:
            key = self.stands_for(job, item, recheck)
            brought = tuple(job.brought(item).items())
            if (item.uri, item.input) in self.waiting_keys[name]:
                known += 1
            elif key and job.is_shown(*key, item):
                known += job.listings > 0
                repeated += job.listings == 0
            elif (key, brought) in reused:
                repeated += 1
            elif key and all((self.contents[key], *one) in self.annotations for one in brought):
                reused[key, brought] = item
            else:
                new.append(item)
        for item in new:
            job.unsettled[item.uri, item.version, item.input, tuple(sorted(job.recipes))] += 1
        for (uri, version), brought in reused:
            for one in brought:
                self.settle(job, version, (uri, *one), "reused")
        job.earlier += repeated * len(job.recipes)
        job.mentions += len(new) + len(reused) + repeated
        return listing.Registered(len(new), len(reused) + repeated, known)

    def stands_for(self, job: JobModel, item: Item, recheck: bool) -> tuple[str, str] | None:
        if item.version:
            return (item.uri, item.version) if (item.uri, item.version) in self.contents else None
        if recheck:
            return None
        with self.database.read() as connection:
            rows = connection.execute(
                select(images.c.version).where(images.c.uri == item.uri).order_by(images.c.id)
            ).scalars()
            known = [(item.uri, version) for version in rows]
        shown = [key for key in known if job.is_shown(*key, item)]
        read = [key for key in known if self.contents[key]]
        return next((some[-1] for some in (read_of(shown, self.contents), shown, read, known) if some), None)

    # the queue

    def take(self, most: int, lost: bool) -> None:
        taken = dispatch.take_pending(self.database, QUEUE, "redis", most)
        rows = self.chunk_rows()
        assert all(rows[one.chunk_id].state == "queued" and rows[one.chunk_id].fence == one.fence for one in taken)
        assert all(self.model_of(rows[one.chunk_id]).state == "running" for one in taken)
        assert len(taken) <= most
        if not lost:
            self.messages += taken

    def cannot_publish(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.messages))
        was_queued = self.is_current(message.chunk_id, message.fence, "queued")
        assert dispatch.put_back(self.database, message.chunk_id, message.fence) == was_queued

    def queue_was_lost(self, data: st.DataObject) -> None:
        queued = [row for row in self.chunk_rows().values() if row.state == "queued"]
        assert dispatch.requeue_lost(self.database, QUEUE, "redis", grace_s=-1) == len(queued)

    # workers

    @rule(data=st.data(), worker=st.sampled_from(WORKERS), lease_s=st.sampled_from([-5, 60]), stays=st.booleans())
    def deliver(self, data: st.DataObject, worker: str, lease_s: float, stays: bool) -> None:
        """A message, which may stay to be delivered again."""
        self.take(data.draw(st.integers(1, 4)), lost=data.draw(st.sampled_from([False, False, False, True])))
        if not self.messages:
            self.ask_for_work(data)
        if not self.messages:
            return
        message = data.draw(st.sampled_from(self.messages))
        if not stays:
            self.messages.remove(message)
        current = self.is_current(message.chunk_id, message.fence, "queued")
        running = current and self.model_of(self.chunk_rows()[message.chunk_id]).state == "running"
        claim = work.claim_chunk(self.database, message.chunk_id, message.fence, worker=worker, lease_s=lease_s)
        assert (claim is not None) == running
        if claim is not None:
            self.claims.append(claim)

    def renew(self, data: st.DataObject) -> None:
        worker, lease_s = data.draw(st.sampled_from(WORKERS)), data.draw(st.sampled_from([-5, 60]))
        ids = {claim.chunk_id for claim in self.claims}
        rows = {id_: row for id_, row in self.chunk_rows().items() if id_ in ids}
        ours = {id_: row for id_, row in rows.items() if row.state == "running" and row.worker == worker}
        states = work.renew_leases(self.database, worker, ids, lease_s)
        assert states == {id_: self.model_of(row).state for id_, row in ours.items()}

    def release(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        ours = self.is_current(claim.chunk_id, claim.fence, "running")
        assert work.release_chunk(self.database, claim) == ours

    def ask_for_work(self, data: st.DataObject) -> None:
        """Without which most steps would find nothing to do."""
        name = data.draw(st.sampled_from(list(JOBS)))
        self.open_job(name, "all")
        self.object_changes(data.draw(st.sampled_from(URIS)))
        brought = data.draw(st.sampled_from(list(BROUGHT.values()) if name == "four" else [""]))
        now = [Item(uri, self.version(uri), None, brought) for uri in URIS]
        self.register(name, now, "more", recheck=False, chunk_size=data.draw(st.integers(1, 3)))
        self.queue_was_lost(data)
        self.take(most=4, lost=False)

    @rule(data=st.data(), keep=st.booleans())
    def work_on(self, data: st.DataObject, keep: bool) -> None:
        """A new claim, and then one of all that there are."""
        self.deliver(data, "w1", 60, stays=False)
        self.complete(data, keep)

    @rule(data=st.data())
    def fail_and_retry(self, data: st.DataObject) -> None:
        self.work_on(data, keep=True)
        self.retry(data, data.draw(st.sampled_from([None, Code.TRUNCATED, Code.MODEL_ERROR])), chunk_size=2)
        self.work_on(data, keep=False)

    @rule(data=st.data(), keep=st.booleans())
    def complete(self, data: st.DataObject, keep: bool) -> None:
        """A mix of annotated, failed and put back. A claim that stays is completed again, in vain."""
        if not self.claims:
            return
        claim = data.draw(st.sampled_from(self.claims))
        if not keep:
            self.claims.remove(claim)
        fates = [data.draw(Results) for _ in claim.items]
        reads = {item.uri: data.draw(st.sampled_from([item.version, self.version(item.uri)])) for item in claim.items}
        completion = self.completion(claim, fates, reads, data)
        ours = self.is_current(claim.chunk_id, claim.fence, "running")
        settled = settlement.complete(self.database, claim, completion, breaker_images=NEVER)
        assert (settled is not None) == ours
        if ours:
            self.expect_completion(claim, completion)

    def completion(self, claim: work.Claim, fates: list[str], reads: dict[str, str], data: st.DataObject) -> Completion:
        settled: list[Settled] = []
        later: list[Item] = []
        for item, fate in zip(claim.items, fates, strict=True):
            version = reads[item.uri] or self.version(item.uri)
            if fate == "later":
                later.append(item)
            elif fate == "failed":
                failure = Failure(data.draw(st.sampled_from([Code.TRUNCATED, Code.NOT_FOUND])), "no")
                settled.append(Settled(item, reads[item.uri], None, dict.fromkeys(claim.recipes, failure)))
            else:
                content = Content(self.sha256(item.uri, version), 32, 32, "PNG", 9)
                brought = Inputs(claim.recipes).hashes_of(item).items()
                results = {one[0]: self.result((content.sha256, *one), data) for one in brought}
                settled.append(Settled(item, version, content, results))
        return Completion(settled, [Later(later, claim.tries + 1, wait_s=-1)] if later else [])

    def result(self, key: tuple[str, int, str], data: st.DataObject) -> Result:
        """Computed, found, or failed by the model."""
        fate = data.draw(st.sampled_from(["compute", "compute", "look", "model_error"]))
        if fate == "model_error":
            return Failure(Code.MODEL_ERROR, "no")
        found = work.find_annotations(self.database, [key[0]], [key[1]]) if fate == "look" else {}
        if key in found:
            return Reuse(found[key])
        return Annotation("raw", Grounding("words", ()), [], "stop", 1, None, "cpu")

    def expect_completion(self, claim: work.Claim, completion: Completion) -> None:
        job = next(self.jobs[name] for name, id_ in self.ids.items() if id_ == claim.job_id)
        recipes = tuple(sorted(claim.recipes))
        for one in completion.settled:
            job.unsettled[one.item.uri, one.item.version, one.item.input, recipes] -= 1
            key = (one.item.uri, one.version)
            self.contents[key] = one.content.sha256 if one.content else self.contents.get(key)
            for recipe, result in one.results.items():
                code = result.code if isinstance(result, Failure) else None
                brought = job.brought(one.item)[recipe]
                kind = "failed" if code else self.made(self.contents[key], recipe, brought)
                self.settle(job, one.version, (one.item.uri, recipe, brought), kind, code)
        job.unsettled += Counter()

    def made(self, sha256: str | None, recipe: int, brought: str) -> str:
        assert sha256 is not None
        kind = "reused" if (sha256, recipe, brought) in self.annotations else "annotated"
        self.annotations.add((sha256, recipe, brought))
        return kind

    def settle(
        self, job: JobModel, version: str, key: tuple[str, int, str], kind: str, code: str | None = None
    ) -> None:
        before = job.shown.get(key)
        if before is not None:
            job.earlier += 1
        job.retrying.pop(key, None)
        stays = before is not None and before.version == version and (before.kind != "failed" or kind == "failed")
        if not stays:
            job.shown[key] = Shown(version, kind, code)

    def workers_stop_and_come_back(self, data: st.DataObject) -> None:
        """Their leases are over and their chunks are with another one; their claims are still among the claims."""
        for worker in (*WORKERS, "w3"):
            dispatch.expire_worker(self.database, worker)
        self.reclaim(data)
        for message in dispatch.take_pending(self.database, QUEUE, "redis", NEVER):
            taken = work.claim_chunk(self.database, message.chunk_id, message.fence, worker="w3", lease_s=60)
            assert taken is not None
            self.claims.append(taken)

    def worker_dies(self, data: st.DataObject) -> None:
        dispatch.expire_worker(self.database, data.draw(st.sampled_from(WORKERS)))

    def reclaim(self, data: st.DataObject) -> None:
        with self.database.read() as connection:
            expired = connection.execute(select(chunks).where(dispatch.EXPIRED)).all()
        assert dispatch.reclaim_expired(self.database) == len(expired)
        for row in expired:
            items = unpack_items(row.item_list)
            if row.crashes + 1 >= dispatch.MOST_CRASHES and len(items) == 1:
                self.expect_given_up(self.model_of(row), items[0], row.recipe_ids)

    def expect_given_up(self, job: JobModel, item: Item, recipe_ids: str | None) -> None:
        recipes = json.loads(recipe_ids) if recipe_ids else job.recipes
        job.unsettled[item.uri, item.version, item.input, tuple(sorted(recipes))] -= 1
        job.unsettled += Counter()
        self.contents.setdefault((item.uri, item.version), None)
        for recipe in recipes:
            key = (item.uri, recipe, job.brought(item)[recipe])
            self.settle(job, item.version, key, "failed", Code.CRASHED_WORKER)

    def run_is_gone(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.jobs)))
        out = [r for r in self.chunk_rows().values() if r.job_id == self.ids[name] and r.state in ("queued", "running")]
        assert dispatch.reclaim_broker(self.database, self.ids[name], "red") == len(out)

    # people

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), what=st.sampled_from(["pause", "resume", "resume", "cancel"]))
    def command(self, data: st.DataObject, what: str) -> None:
        name = data.draw(st.sampled_from(list(self.jobs)))
        job, id_ = self.jobs[name], self.ids[name]
        if what == "pause":
            assert jobs.pause_job(self.database, id_, "tea") == (job.state == "running")
            job.state = "paused" if job.state == "running" else job.state
        elif what == "resume":
            assert jobs.resume_job(self.database, id_) == (job.state == "paused")
            job.state = "running" if job.state == "paused" else job.state
        else:
            assert jobs.cancel_job(self.database, id_) == (job.state in ("running", "paused"))
            job.state = "cancelled" if job.state in ("running", "paused") else job.state

    def retry(self, data: st.DataObject, code: Code | None, chunk_size: int) -> None:
        name = data.draw(st.sampled_from(list(self.jobs)))
        job = self.jobs[name]
        failed = {
            key: shown.version
            for key, shown in job.shown.items()
            if shown.kind == "failed" and code in (None, shown.code)
        }
        at = jobs.get_job(self.database, self.ids[name])
        assert retries.retry_failed(self.database, at, code=code, chunk_size=chunk_size) == len(failed)
        by_item: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for (uri, recipe, brought), version in failed.items():
            by_item[uri, version, BROUGHT[brought]].append(recipe)
            job.retrying[uri, recipe, brought] = version
            del job.shown[uri, recipe, brought]
        for key, recipes in by_item.items():
            job.unsettled[*key, tuple(sorted(recipes))] += 1
        if failed and job.state in ("finished", "cancelled"):
            job.state = "running"

    def finish(self, data: st.DataObject) -> None:
        ready = [
            name
            for name, job in self.jobs.items()
            if job.state == "running" and job.listed and not job.unsettled.total()
        ]
        assert sorted(jobs.finish_jobs(self.database)) == sorted(ready)
        for name in ready:
            self.jobs[name].state = "finished"

    @rule(data=st.data())
    def trouble(self, data: st.DataObject) -> None:
        """One of the things that happen beside the work. They are one rule, so that most steps are work."""
        happenings = [
            self.finish,
            self.queue_was_lost,
            self.run_is_gone,
            self.worker_dies,
            self.reclaim,
            self.renew,
            self.workers_stop_and_come_back,
        ]
        happenings += [self.cannot_publish] if self.messages else []
        happenings += [self.release] if self.claims else []
        data.draw(st.sampled_from(happenings))(data)

    # what must hold

    @invariant()
    def items_are_conserved(self) -> None:
        there: dict[str, Counter[tuple[str, str, str, tuple[int, ...]]]] = {name: Counter() for name in self.jobs}
        for row in self.chunk_rows().values():
            name = self.name_of(row)
            recipes = json.loads(row.recipe_ids) if row.recipe_ids else self.jobs[name].recipes
            items = unpack_items(row.item_list)
            assert len(items) == row.size
            there[name].update((item.uri, item.version, item.input, tuple(sorted(recipes))) for item in items)
        assert there == {name: job.unsettled for name, job in self.jobs.items()}

    @invariant()
    def counters_say_what_the_outcomes_say(self) -> None:
        with self.database.read() as connection:
            rows = connection.execute(select(jobs_table)).all()
        for row in rows:
            job = self.jobs[row.name]
            kinds = Counter(shown.kind for shown in job.shown.values())
            assert row.state == job.state
            assert (row.images, row.annotated, row.failed) == (job.mentions, kinds["annotated"], kinds["failed"])
            assert row.reused == kinds["reused"] + job.earlier
            waiting = sum(times * len(recipes) for (*_, recipes), times in job.unsettled.items())
            assert row.images * row.recipes == row.annotated + row.reused + row.failed + waiting

    @invariant()
    def one_outcome_is_shown_for_each_uri_recipe_and_input(self) -> None:
        with self.database.read() as connection:
            query = (
                select(outcomes, images.c.uri, images.c.version).join(images).where(outcomes.c.superseded.is_(False))
            )
            rows = connection.execute(query).all()
        shown: dict[tuple[int, str, int, str], Any] = {}
        for row in rows:
            assert (row.job_id, row.uri, row.recipe_id, row.input) not in shown
            assert (row.annotation_id is None) != (row.code is None)
            kind = "failed" if row.code else "reused" if row.reused else "annotated"
            shown[row.job_id, row.uri, row.recipe_id, row.input] = ("retrying" if row.retrying else kind, row.version)
        expected: dict[tuple[int, str, int, str], Any] = {}
        for name, job in self.jobs.items():
            for key, one in job.shown.items():
                expected[self.ids[name], *key] = (one.kind, one.version)
            for key, version in job.retrying.items():
                expected[self.ids[name], *key] = ("retrying", version)
        assert shown == expected

    @invariant()
    def leases_and_fences_are_sound(self) -> None:
        for id_, row in self.chunk_rows().items():
            assert (row.state == "running") == (row.lease_until is not None) == (row.worker is not None)
            assert row.fence >= self.fences.get(id_, 0)
            self.fences[id_] = row.fence

    def teardown(self) -> None:
        """Whatever happened, the jobs can be brought to their end, and their counters close."""
        try:
            for name, id_ in self.ids.items():
                job = jobs.get_job(self.database, id_)
                if job.state in ("paused", "cancelled") or job.listed_at is None:
                    job = jobs.open_job(self.database, name, JOBS[name], listing=job.listing)
                    listing.finish_listing(self.database, job)
            self.drain()
        finally:
            empty(self.database)

    def drain(self) -> None:
        dispatch.requeue_lost(self.database, QUEUE, "redis", grace_s=-1)
        for id_ in self.ids.values():
            dispatch.reclaim_broker(self.database, id_, "")
        for one in dispatch.take_pending(self.database, QUEUE, "redis", NEVER):
            claim = work.claim_chunk(self.database, one.chunk_id, one.fence, worker="w", lease_s=60)
            assert claim is not None
            failure = Failure(Code.EMPTY_FILE, "no")
            settled = [Settled(item, item.version, None, dict.fromkeys(claim.recipes, failure)) for item in claim.items]
            assert settlement.complete(self.database, claim, Completion(settled), breaker_images=NEVER)
        jobs.finish_jobs(self.database)
        for id_ in self.ids.values():
            job = jobs.get_job(self.database, id_)
            assert (job.state, job.pending) == ("finished", 0)

    # from rows to the model

    def chunk_rows(self) -> dict[int, Any]:
        with self.database.read() as connection:
            return {row.id: row for row in connection.execute(select(chunks).where(chunks.c.state != "done"))}

    def is_current(self, chunk_id: int, fence: int, state: str) -> bool:
        row = self.chunk_rows().get(chunk_id)
        return row is not None and (row.fence, row.state) == (fence, state)

    def name_of(self, row: Any) -> str:
        return next(name for name, id_ in self.ids.items() if id_ == row.job_id)

    def model_of(self, row: Any) -> JobModel:
        return self.jobs[self.name_of(row)]


def read_of(keys: list[tuple[str, str]], contents: dict[tuple[str, str], str | None]) -> list[tuple[str, str]]:
    return [key for key in keys if contents[key]]


def empty(database: Database) -> None:
    with database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


@pytest.fixture
def machine(database: Database) -> Callable[[], LedgerMachine]:
    return lambda: LedgerMachine(database)


def test_every_way_through_the_ledger_conserves_items_and_closes_counters(
    machine: Callable[[], LedgerMachine], database: Database
) -> None:
    limits = settings(
        max_examples=35 if database.is_sqlite else 10,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=limits)
