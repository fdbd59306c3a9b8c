"""The benchmarks of scale work from one end to the other, at toy size, and say what they should in one JSON file."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.pictures import draw_many
from benchmarks.scale import projection, tables
from benchmarks.scale.figures import keep
from benchmarks.scale.watching import Look, Span, kind_of, sizes_mb

ROOT = Path(__file__).parents[2]
STAGES = {"claim", "look up", "complete", "leases", "scores", "queue"}


def bench(module: str, *arguments: str) -> str:
    """What a benchmark prints."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def part(path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())[name]
    assert found["machine"]["command"].startswith("python -m benchmarks.scale")
    return found


@pytest.mark.parametrize(("db", "sizes"), [("sqlite", "70,140"), ("postgresql", "70")])
def test_annotate_is_measured_at_each_size_and_its_plot_is_drawn(db: str, sizes: str, tmp_path: Path) -> None:
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.png"
    out = bench(
        *("benchmarks.scale", "--images", sizes, "--db", db, "--json", str(figures), "--plot", str(plot)),
        *("--keep", str(tmp_path / "kept")),
    )
    runs = part(figures, "annotate")[db]
    assert list(runs) == sizes.split(",")
    expected = {"annotate", "worker", "loaders", "Redis", "keepers"} | ({"PostgreSQL"} if db == "postgresql" else set())
    for run in runs.values():
        assert expected <= set(run["cpu_us"])
        assert all(run["cpu_us"][kind] > 0 for kind in ("annotate", "worker", "loaders"))
        assert expected <= set(run["resident_mb"])
        assert 0 < run["redis_peak_mb"] < 20
        assert run["database_bytes"] > 0
        assert run["images_per_s"] > 0
    assert "| 70 |" in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert plot.stat().st_size < 150_000
    assert len(list((tmp_path / "kept").rglob("*.jpg"))) == sum(map(int, sizes.split(",")))


def test_stages_of_the_worker_are_told_apart(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    toy = ("--images", "200", "--chunk-sizes", "16,64", "--db", "sqlite")
    out = bench("benchmarks.scale.stages", *toy, "--json", str(figures))
    runs = part(figures, "stages")["sqlite"]
    assert list(runs) == ["16", "64"]
    for run in runs.values():
        assert run["images"] == 200
        assert set(run["cpu_us"]) == STAGES
        assert all(run["cpu_us"][stage] > 0 for stage in ("claim", "look up", "complete", "queue", "scores"))
        assert run["server_cpu_us"] > 0
    assert "**queue and ledger**" in out


def test_registration_goes_on_from_its_cursor_and_a_second_pass_adds_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    bench("benchmarks.scale.registration", "--images", "5000", "--db", "sqlite", "--json", str(figures))
    run = part(figures, "registration")["sqlite"]
    killed = run["killed"]
    assert 2500 <= killed["registered"] < 5000
    assert killed["cursor"][1] == str(killed["registered"])
    assert killed["images"] == killed["once_each"] == 5000
    assert all(run[name]["wall_s"] > 0 and run[name]["peak_mb"] > 0 for name in ("first", "second"))


def test_workers_are_measured_with_decoding_and_without(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    toy = ("--images", "140", "--bare-images", "256", "--workers", "2", "--jobs", "2")
    bench("benchmarks.scale.workers", *toy, "--json", str(figures))
    found = part(figures, "workers")
    assert {"worker", "dispatcher", "loaders", "PostgreSQL"} <= set(found["whole"]["2"]["cpu_us"])
    assert [(run["workers"], run["jobs"]) for run in found["bare"].values()] == [(2, 2)]
    assert all(run["chunks_per_s"] > 0 for run in found["bare"].values())


def test_status_and_dispatcher_are_measured_before_many_chunks(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    bench("benchmarks.scale.status", "--chunks", "1500", "--db", "both", "--json", str(figures))
    found = part(figures, "status")
    for kind in ("sqlite", "postgresql"):
        assert [run["images"] for run in found[kind].values()] == [96_000]
        assert all(run["steps_ms"]["filling"]["wall"] > 0 < run["status"]["wall_s"] for run in found[kind].values())


def test_recovery_is_measured_from_the_kill_to_the_end_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOSMOGRAPH_LEASE_S", "3")
    figures = tmp_path / "figures.json"
    toy = ("--kills", "1", "--images", "3000", "--db", "sqlite")
    out = bench("benchmarks.scale.recovery", *toy, "--json", str(figures))
    (run,) = part(figures, "recovery")["sqlite"]
    assert run["chunks"] >= 1
    assert 0 < run["put_back_s"] <= run["finished_s"]
    assert "| SQLite |" in out


def test_pictures_are_jpegs_of_unique_bytes(tmp_path: Path) -> None:
    draw_many(tmp_path / "many", 1003, kinds=5)
    paths = sorted((tmp_path / "many").rglob("*.jpg"))
    assert [path.parent.name for path in paths[999:1001]] == ["000000", "000001"]
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in paths}) == 1003
    with Image.open(paths[-1]) as image:
        image.load()
        assert (image.size, image.info["comment"]) == ((96, 96), b"0000001002")


def test_figures_gather_in_one_file_and_newer_ones_take_the_place_of_older(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    keep(path, "annotate", {"sqlite": {"10": 1, "20": 2}})
    keep(path, "annotate", {"sqlite": {"20": 3}, "postgresql": {"10": 4}})
    keep(path, "stages", {"sqlite": 5})
    assert json.loads(path.read_text()) == {
        "annotate": {"sqlite": {"10": 1, "20": 3}, "postgresql": {"10": 4}},
        "stages": {"sqlite": 5},
    }


def test_cost_and_size_are_those_between_the_tenths() -> None:
    """100 images at ten a second, 0.2 s of CPU an image after a start of 5 s, a size that grows from 10 MB to 11."""
    looks = [
        Look(second, 10 * second, {"worker": 5.0 + 2 * second}, {"worker": 10**7 + second * 10**5}, 0, 0, 3.0 * second)
        for second in range(11)
    ]
    span = Span.of(looks, 100)
    assert (span.images, span.seconds) == (80, 8)
    assert span.cpu_us() == {"worker": pytest.approx(200_000)}
    sizes = sizes_mb(looks, 100)["worker"]
    assert sizes == {"first": pytest.approx(10.1), "last": pytest.approx(10.9), "most": pytest.approx(11.0)}


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("python -P -m kosmograph.keeper python -P -m kosmograph worker --name a", "keepers"),
        ("python -P -m kosmograph worker --name a", "worker"),
        ("python -P -m kosmograph dispatch", "dispatcher"),
        ("python -P -c from worker.loader_process import run; run(3)", "loaders"),
        ("python -P -m kosmograph annotate photos --model null", "annotate"),
        ("/usr/bin/valkey-server unixsocket:/tmp/redis.sock", "Redis"),
        ("sleep 1", "other"),
    ],
)
def test_kind_of_a_process_is_told_from_its_command(command: str, kind: str) -> None:
    assert kind_of(command) == kind


def test_table_goes_between_its_marks_and_a_mark_without_one_keeps_what_it_has() -> None:
    page = "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\nkept\n<!-- end -->\n"
    made = tables.put(page, {"one": "| new \\1 |", "three": "| nowhere |"})
    assert made == page.replace("old", "\n| new \\1 |\n")


def test_figures_are_carried_on_by_multiplication() -> None:
    run = {"images": 1000, "steady_cpu_us": {"loaders": 1000.0}, "database_bytes": 800.0, "redis_peak_mb": 2.0}
    stages = {"cpu_us": {"claim": 30.0, "complete": 60.0, "scores": 500.0}, "dispatcher_cpu_us": 36.0}
    whole = {
        "annotate": {"sqlite": {"1000": run}},
        "stages": {"sqlite": {"64": stages}},
        "registration": {"sqlite": {"images": 1000, "first": {"wall_s": 0.036}, "second": {"wall_s": 0.018}}},
    }
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in projection.carried_on(whole)}
    assert rows["chunk rows"][-1] == "15,625,000"
    assert rows["SQLite: a worker's queue and ledger, CPU-hours"][1:] == ["90 µs", "0.025", "0.25", "2.5", "25"]
    assert rows["SQLite: database, GB"][1:] == ["800 B", "0.8", "8", "80", "800"]
    assert rows["SQLite: registration by manifest, hours"][1:] == ["36 µs", "0.01", "0.1", "1", "10"]
