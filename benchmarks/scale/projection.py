"""The figures carried on: what ten million, a hundred million and a billion images would take, by multiplication."""

from collections.abc import Iterator

from benchmarks.scale.markdown import DATABASES, Figures, number, table

NEEDS = {"annotate", "stages", "registration"}
SIZES = (10**6, 10**7, 10**8, 10**9)
CHUNK_SIZE = 64
GPU_IMAGES_PER_S = (100, 1000)
"""Not measured: two round numbers to scale by."""
LISTED_KEYS_PER_S = 8300
"""Of S3, one process: measured for the study, against a server on the same machine."""
DOLLARS_PER_1000_GET, DOLLARS_PER_1000_LIST = 0.0004, 0.005
"""List prices of S3 Standard in us-east-1, to be checked against the bill. A LIST names 1,000 keys."""


def carried_on(whole: Figures) -> Iterator[str]:
    """A column for each size, a row for each need, with the figure that is multiplied."""
    yield from table(("", "an image", *(f"{size:,}" for size in SIZES)), [*_anyhow(), *_by_database(whole)])


def _anyhow() -> Iterator[tuple[str, ...]]:
    yield "chunk rows", f"1 / {CHUNK_SIZE}", *(f"{size / CHUNK_SIZE:,.0f}" for size in SIZES)
    for rate in GPU_IMAGES_PER_S:
        yield f"GPU-hours at {rate:,} images/s a GPU (assumed)", f"1 / {rate:,} s", *_hours(1 / rate)
    yield "listing S3, hours (one process)", f"1 / {LISTED_KEYS_PER_S:,} s", *_hours(1 / LISTED_KEYS_PER_S)
    for name, dollars in (("GET", DOLLARS_PER_1000_GET / 1000), ("LIST", DOLLARS_PER_1000_LIST / 1e6)):
        yield f"S3 {name} requests (list price)", f"${dollars:.1e}", *(f"${size * dollars:,.2f}" for size in SIZES)


def _by_database(whole: Figures) -> Iterator[tuple[str, ...]]:
    for kind, name in DATABASES.items():
        if not all(kind in whole[part] for part in NEEDS):
            continue
        run = max(whole["annotate"][kind].values(), key=lambda run: run["images"])
        costs = run["steady_cpu_us"] or run["cpu_us"]
        stages, listing = whole["stages"][kind][str(CHUNK_SIZE)], whole["registration"][kind]
        ledger_us = sum(cost for stage, cost in stages["cpu_us"].items() if stage != "scores")
        yield f"{name}: loaders (96×96 pixels), CPU-hours", *_cpu(costs.get("loaders", 0.0))
        yield f"{name}: a worker's queue and ledger, CPU-hours", *_cpu(ledger_us)
        yield f"{name}: dispatcher, CPU-hours", *_cpu(stages["dispatcher_cpu_us"])
        if kind == "postgresql":
            yield f"{name}: its own processes, CPU-hours", *_cpu(costs.get("PostgreSQL", 0.0))
        yield f"{name}: registration by manifest, hours", *_time(listing["first"]["wall_s"] / listing["images"])
        yield f"{name}: again with nothing new, hours", *_time(listing["second"]["wall_s"] / listing["images"])
        yield f"{name}: database, GB", *_bytes(run["database_bytes"])
        if "log_bytes" in run:
            yield f"{name}: write-ahead log in all, GB", *_bytes(run["log_bytes"])
        yield f"{name}: Redis, most, MB", "bounded", *[f"{run['redis_peak_mb']:.1f}"] * len(SIZES)


def _hours(seconds: float) -> tuple[str, ...]:
    return tuple(number(size * seconds / 3600) for size in SIZES)


def _cpu(us: float) -> tuple[str, ...]:
    return f"{number(us)} µs", *_hours(us / 1e6)


def _time(seconds: float) -> tuple[str, ...]:
    return f"{number(seconds * 1e6)} µs", *_hours(seconds)


def _bytes(each: float) -> tuple[str, ...]:
    return f"{number(each)} B", *(number(size * each / 1e9) for size in SIZES)
