"""S3 at its worst, between real runs and a real server: nothing is lost, nothing doubled, nobody wrongly blamed."""

from collections.abc import Callable

import pytest

from tests.faults import s3_proxy as faults
from tests.faults.archive import Archive, the_line_of
from tests.faults.s3_proxy import Exchange, Fault, Request
from tests.pipeline.conftest import jpeg

IN_PLACE = 3
"""Attempts within one try."""
IMPATIENT = {"KOSMOGRAPH_FETCH_TIMEOUT_S": "6"}
PERMANENT = {
    faults.ACCESS_DENIED: "access_denied",
    faults.EXPIRED_TOKEN: "access_denied",
    faults.NO_SUCH_KEY: "not_found",
    faults.NO_SUCH_BUCKET: "not_found",
}


def name_of(fault: Fault) -> str:
    return fault.__name__


def asks_for(*keys: str) -> Callable[[Request], bool]:
    return lambda request: request.key in keys


def is_object(request: Request) -> bool:
    return request.is_object


def test_faults_that_pass_cost_no_image(archive: Archive) -> None:
    """Each fault there is befalls two objects of their own, once each; others beside them meet none."""
    every = [*faults.QUICK, *faults.SLOW]
    archive.fill(2 * len(every) + 4)
    for number, fault in enumerate(every):
        archive.faults.add(fault, asks_for(archive.key(2 * number), archive.key(2 * number + 1)), each=1)
    run = archive.annotate(**IMPATIENT)
    assert run.code == 0, run.err
    assert archive.proxy.thrown() == {name_of(fault): 2 for fault in every}
    archive.assert_sound()


def test_short_bursts_are_ridden_out_in_place(archive: Archive) -> None:
    archive.fill(6)
    for number, fault in enumerate([faults.SLOW_DOWN, faults.INTERNAL_ERROR, faults.reset]):
        archive.faults.add(fault, asks_for(archive.key(number)), each=IN_PLACE - 1)
    run = archive.annotate()
    assert run.code == 0, run.err
    assert archive.kosmograph.value("SELECT MAX(tries) FROM chunks") == 0
    assert archive.kosmograph.value("SELECT MAX(tries) FROM outcomes") == 1
    archive.assert_sound()


def test_long_bursts_send_the_images_into_child_chunks(archive: Archive) -> None:
    """Others of the same chunks are not held up, and those that come later are tried anew."""
    archive.fill(16)
    throttled, away = ({archive.key(number) for number in range(first, 16, 4)} for first in (0, 2))
    archive.faults.add(faults.SLOW_DOWN, asks_for(*throttled), each=IN_PLACE + 1)
    archive.faults.add(faults.GATEWAY_TIMEOUT, asks_for(*away), each=IN_PLACE + 1)
    run = archive.annotate()
    assert run.code == 0, run.err
    assert archive.kosmograph.value("SELECT MAX(tries) FROM chunks") >= 1
    tries = archive.kosmograph.sql("SELECT i.uri, o.tries FROM outcomes o JOIN images i ON i.id = o.image_id")
    again = {row["uri"].removeprefix(f"s3://{archive.s3.bucket}/") for row in tries if row["tries"] > 1}
    assert again == throttled | away
    archive.assert_sound()


def test_throttling_never_trips_the_breaker(archive: Archive) -> None:
    """All objects at once, for longer than any patience: they fail as what they are, and the job ends."""
    archive.fill(10)
    archive.faults.add(faults.SLOW_DOWN, is_object)
    run = archive.annotate(KOSMOGRAPH_BREAKER_IMAGES="1", KOSMOGRAPH_MAX_TRIES="2")
    assert run.code == 3, run.err
    assert set(archive.failed().values()) == {"throttled"}
    archive.assert_sound("throttled")
    archive.faults.rules.clear()
    assert archive.kosmograph.here("retry", archive.kosmograph.value("SELECT job FROM progress")).code == 0
    assert archive.annotate().code == 0
    archive.assert_sound()


def test_permanent_codes_are_each_image_s_own(archive: Archive) -> None:
    """And are told at once: no second request, in place or later."""
    archive.fill(12)
    for number, fault in enumerate(PERMANENT):
        archive.faults.add(fault, asks_for(archive.key(number)))
    run = archive.annotate()
    assert run.code == 3, run.err
    assert archive.failed() == dict(zip(archive.uris, PERMANENT.values(), strict=False))
    assert [archive.proxy.asked(archive.key(number)) for number in range(12)] == [1] * 12
    archive.assert_sound("access_denied", "not_found")


def test_objects_that_never_come_fail_by_their_time_and_alone(archive: Archive) -> None:
    archive.fill(6)
    archive.faults.add(faults.trickle, asks_for(archive.key(2)))
    archive.faults.add(faults.hang, asks_for(archive.key(4)))
    run = archive.annotate(KOSMOGRAPH_FETCH_TIMEOUT_S="12", KOSMOGRAPH_MAX_TRIES="1")
    assert run.code == 3, run.err
    assert archive.failed() == {archive.uris[2]: "timeout", archive.uris[4]: "timeout"}
    archive.assert_sound("timeout")


def test_object_that_changes_after_the_listing_is_annotated_as_it_is_now(archive: Archive) -> None:
    """Its new version is stored, so that the next run has nothing to do for it."""
    archive.fill(6)
    listed = archive.s3.client.head_object(Bucket=archive.s3.bucket, Key=archive.key(3))["ETag"].strip('"')

    def change_then_answer(exchange: Exchange) -> None:
        archive.s3.put(archive.key(3), jpeg(1003))
        exchange.send(exchange.fetch())

    archive.faults.add(change_then_answer, asks_for(archive.key(3)), each=1)
    run = archive.annotate()
    assert run.code == 0, run.err
    read = archive.s3.client.head_object(Bucket=archive.s3.bucket, Key=archive.key(3))["ETag"].strip('"')
    (stored,) = archive.kosmograph.sql(f"SELECT version FROM images WHERE uri = '{archive.uris[3]}'")
    assert stored["version"] == read != listed
    archive.assert_sound()
    assert archive.annotate().code == 0
    assert [archive.proxy.asked(archive.key(number)) for number in range(6)] == [1] * 6
    archive.assert_sound()


def test_body_of_another_object_is_stored_under_its_own_version(archive: Archive) -> None:
    """A cache in between that serves what was there before: it is read again once it is put right."""
    archive.fill(4)
    archive.faults.add(faults.exchanged(jpeg(1001)), asks_for(archive.key(1)), each=1)
    assert archive.annotate().code == 0
    archive.assert_sound()
    stale = archive.kosmograph.value(f"SELECT version FROM images WHERE uri = '{archive.uris[1]}'")
    assert archive.annotate().code == 0
    versions = archive.kosmograph.sql(f"SELECT version FROM images WHERE uri = '{archive.uris[1]}'")
    assert len(versions) == 2
    assert stale in {row["version"] for row in versions}
    assert archive.kosmograph.value(f"SELECT COUNT(*) FROM captions WHERE uri = '{archive.uris[1]}'") == 1


@pytest.mark.parametrize("fault", [faults.SLOW_DOWN, faults.truncate], ids=name_of)
def test_listing_that_is_cut_off_goes_on_from_its_cursor(archive: Archive, fault: Fault) -> None:
    """Given pages of ten, when the third never comes, then it is one line; the next run asks for what is missing."""
    archive.fill(35)
    tokens: list[str] = []

    def third_page(request: Request) -> bool:
        if request.is_later_page and request.query["continuation-token"] not in tokens:
            tokens.append(request.query["continuation-token"])
        return request.is_later_page and request.query["continuation-token"] in tokens[1:]

    archive.faults.add(fault, third_page)
    run = archive.annotate()
    assert run.code == 1
    assert archive.source in the_line_of(run)
    before = archive.kosmograph.sql("SELECT cursor, images FROM jobs")[0]
    assert before["cursor"]
    assert 0 < before["images"] < 35

    archive.faults.rules.clear()
    asked = len(archive.proxy.log)
    run = archive.annotate()
    assert run.code == 0, run.err
    starts = [request.query.get("start-after") for request, _ in archive.proxy.log[asked:] if request.is_listing]
    assert archive.key(before["images"] - 1) in starts
    archive.assert_sound()


def test_listing_rides_out_a_short_burst(archive: Archive) -> None:
    archive.fill(35)
    archive.faults.add(faults.SLOW_DOWN, lambda request: request.is_listing, each=IN_PLACE - 1)
    run = archive.annotate()
    assert run.code == 0, run.err
    archive.assert_sound()


def test_random_faults_lose_and_double_nothing(archive: Archive) -> None:
    """A third of all requests meet a fault of any kind, listings included."""
    archive.fill(60)
    archive.proxy.plan = faults.RandomPlan(seed=1)
    run = archive.annotate(**IMPATIENT)
    assert run.code == 0, (run.err, archive.proxy.thrown())
    assert archive.proxy.thrown().total() >= 15
    archive.assert_sound()
