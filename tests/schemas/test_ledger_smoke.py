from schemas.database import Database
from schemas.grounding import Box, Entity, Grounding
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, settlement, work
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Content, Settled


def test_smoke(database: Database) -> None:
    r = Recipe(task="brief", prompt="<grounding>An image of", model="null", revision="null", dtype="none")
    job = jobs.open_job(database, "j", [r], listing="{}")
    listing.register(database, job, [Item(f"file:///{i}.jpg", "1") for i in range(10)], cursor="9", chunk_size=4)
    listing.finish_listing(database, job)
    for d in dispatch.take_pending(database, r.queue, "b", 10):
        claim = work.claim_chunk(database, d.chunk_id, d.fence, worker="w", lease_s=10)
        assert claim
        assert work.claim_chunk(database, d.chunk_id, d.fence, worker="w", lease_s=10) is None
        assert work.renew_leases(database, "w", [d.chunk_id], 10) == {d.chunk_id: "running"}
        g = Grounding("An image of a cat", (Entity("a cat", 12, 17, (Box(0, 0, 1, 1, 0, 1023, 0, True),)),))
        c = Completion(
            [
                Settled(
                    i,
                    i.version,
                    Content(i.uri, 3, 4, "JPEG", 9),
                    {k: Annotation("raw", g, [[0.5]], "stop", 3, -1.0, "cpu") for k in claim.recipes},
                )
                for i in claim.items
            ]
        )
        assert settlement.complete(database, claim, c, breaker_images=5)
        assert not settlement.complete(database, claim, c, breaker_images=5)
    assert jobs.finish_jobs(database) == ["j"]
    from sqlalchemy import text

    with database.read() as conn:
        print(conn.execute(text("select * from progress")).mappings().all())
        print(conn.execute(text("select * from groundings")).mappings().first())
        print(conn.execute(text("select * from captions")).mappings().first())
        print(conn.execute(text("select * from failures")).mappings().first())
    j = jobs.get_job(database, job.id)
    assert (j.images, j.annotated, j.pending, j.state) == (10, 10, 0, "finished")
