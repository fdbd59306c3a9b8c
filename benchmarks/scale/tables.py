# ruff: noqa: T201
"""The figures of a JSON file as Markdown.

    python -m benchmarks.scale.tables FILE.json [--into PAGE.md]

Prints every table that the file has figures for. With --into, each goes into the page instead, in place of what stands
between its marks: `<!-- table: NAME -->` and `<!-- end -->`.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.scale import projection
from benchmarks.scale.markdown import DATABASES, Figures, number, share, table

KINDS = ("loaders", "worker", "annotate", "dispatcher", "Redis", "PostgreSQL", "keepers", "other")
KINDS_OF_SERVICES = ("loaders", "worker", "dispatcher", "Redis", "PostgreSQL")
STEPS = {"step that sends 256, ms (CPU)": "filling", "step with a full queue, ms (CPU)": "idle"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=Path)
    options.add_argument("--into", type=Path, metavar="PAGE.md")
    given = options.parse_args()
    whole = read(given.file)
    made = {name: "\n".join(of(whole[name])) for name, of in TABLES.items() if name in whole}
    if whole.keys() >= projection.NEEDS:
        made["carried on"] = "\n".join(projection.carried_on(whole))
    if given.into:
        given.into.write_text(put(given.into.read_text(), made))
        return
    for name, lines in made.items():
        print(f"<!-- table: {name} -->\n\n{lines}\n")


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def put(page: str, made: Mapping[str, str]) -> str:
    """The page with the tables between their marks. A mark without a table keeps what it has."""
    for name, lines in made.items():
        marks = rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)"
        page = re.sub(marks, partial(_between, lines), page, flags=re.DOTALL)
    return page


def _between(lines: str, marks: "re.Match[str]") -> str:
    return f"{marks[1]}\n{lines}\n\n{marks[2]}"


def annotate(part: Figures) -> Iterator[str]:
    """Rates, CPU, sizes and bytes of `benchmarks.scale`."""
    yield made_on(part)
    yield ""
    runs = [(kind, run) for kind in DATABASES if kind in part for run in by(part[kind], "images")]
    yield from table(
        (
            "database",
            "images",
            "images/s, steady",
            "ledger's clock",
            "start included",
            "Redis, most",
            "bytes an image",
            "cores busy",
        ),
        [
            (
                DATABASES[kind],
                f"{run['images']:,}",
                number(run["steady_images_per_s"]),
                number(run["images_per_s"]),
                number(run["whole_images_per_s"]),
                f"{run['redis_peak_mb']:.1f} MB",
                number(run["database_bytes"]),
                share(run["steady_busy"]),
            )
            for kind, run in runs
        ],
    )
    yield from (
        "",
        "CPU µs an image, between a tenth and nine tenths of the images (in brackets: whole run, start included):",
        "",
    )
    present = [kind for kind in KINDS if any(kind in run["cpu_us"] for _, run in runs)]
    yield from table(
        ("database", "images", *present),
        [(DATABASES[kind], f"{run['images']:,}", *(cost(run, process) for process in present)) for kind, run in runs],
    )
    yield from (
        "",
        "Resident MB in the first and in the last tenth of the images (PostgreSQL: not counting what is shared):",
        "",
    )
    yield from table(
        ("database", "images", *present),
        [
            (DATABASES[kind], f"{run['images']:,}", *(resident(run, process) for process in present))
            for kind, run in runs
        ],
    )


def stages(part: Figures) -> Iterator[str]:
    """Queue and ledger by stage, of `benchmarks.scale.stages`."""
    yield made_on(part)
    yield ""
    found = [(name, run) for kind, name in DATABASES.items() if kind in part for run in by(part[kind], "chunk_size")]
    runs = [run for _, run in found]
    named = [stage for stage in runs[0]["cpu_us"] if stage != "scores"]
    yield from table(
        ("CPU µs an image", *(f"{name}, chunks of {run['chunk_size']}" for name, run in found)),
        [
            *((stage, *(number(run["cpu_us"][stage]) for run in runs)) for stage in named),
            ("**queue and ledger**", *(f"**{number(queue_and_ledger_us(run))}**" for run in runs)),
            ("parsing, scores", *(number(run["cpu_us"]["scores"]) for run in runs)),
            ("dispatcher", *(number(run["dispatcher_cpu_us"]) for run in runs)),
            ("the database's own", *(number(run["server_cpu_us"]) for run in runs)),
            ("images/s of one such worker", *(number(run["images_per_s"]) for run in runs)),
        ],
    )


def queue_and_ledger_us(run: Figures) -> float:
    """What the project allows 100 µs."""
    return float(sum(cost for stage, cost in run["cpu_us"].items() if stage != "scores"))


def registration(part: Figures) -> Iterator[str]:
    """Passes over a manifest, of `benchmarks.scale.registration`."""
    yield made_on(part)
    yield ""
    rows = []
    for kind, name in DATABASES.items():
        if kind not in part:
            continue
        run, killed = part[kind], part[kind]["killed"]
        rows += [
            (name, f"{run['images']:,} new", *passed(run["first"])),
            (name, "again, all settled, nothing new", *passed(run["second"])),
            (
                name,
                f"again after kill -9 at {killed['registered']:,} (cursor: line {killed['cursor'][1]})",
                *passed(killed["again"]),
            ),
        ]
    yield from table(("database", "pass", "seconds", "CPU s of submit", "CPU s of PostgreSQL", "most MB"), rows)
    yield ""
    for kind, name in DATABASES.items():
        if kind in part:
            run, killed = part[kind], part[kind]["killed"]
            yield (
                f"{name}: {number(run['registered_bytes'])} bytes an image as registered; after the kill chunks hold "
                f"{killed['once_each']:,} of {run['images']:,} URIs, each once; the job counts {killed['images']:,}. "
            )


def workers(part: Figures) -> Iterator[str]:
    """Workers side by side, of `benchmarks.scale.workers`."""
    yield made_on(part)
    yield ""
    runs = by(part["whole"], "workers")
    yield from table(
        ("workers, decoding", "images/s", "cores busy", *KINDS_OF_SERVICES),
        [
            (
                str(run["workers"]),
                number(run["steady_images_per_s"]),
                share(run["steady_busy"]),
                *(number((run["steady_cpu_us"] or {}).get(kind)) for kind in KINDS_OF_SERVICES),
            )
            for run in runs
        ],
    )
    yield from (
        "",
        "(The last columns: CPU µs an image by kind of process, between a tenth and nine tenths of the images.)",
        "",
    )
    yield from table(
        ("workers, no decoding", "jobs", "images/s", "chunks/s", "cores busy", "worker", "dispatcher", "PostgreSQL"),
        [
            (
                str(run["workers"]),
                str(run["jobs"]),
                number(run["images_per_s"]),
                number(run["chunks_per_s"]),
                share(run["busy"]),
                number(run["cpu_us"]),
                number(run["dispatcher_cpu_us"]),
                number(run["server_cpu_us"]),
            )
            for run in sorted(part["bare"].values(), key=lambda run: (run["jobs"], run["workers"]))
        ],
    )


def status(part: Figures) -> Iterator[str]:
    """`status` and the dispatcher before many chunk rows, of `benchmarks.scale.status`."""
    yield made_on(part)
    yield ""
    runs = [(DATABASES[kind], run) for kind in DATABASES if kind in part for run in by(part[kind], "images")]
    yield from table(
        ("database", "unfinished chunks", "images", "`status`, s", "its CPU s", *STEPS, "database, MB"),
        [
            (
                name,
                f"{run['chunks']:,}",
                f"{run['images']:,}",
                f"{run['status']['wall_s']:.2f}",
                f"{run['status']['cpu_s']:.2f}",
                *(
                    f"{run['steps_ms'][step]['wall']:.1f} ({run['steps_ms'][step]['cpu']:.1f})"
                    for step in STEPS.values()
                ),
                number(run["database_bytes"] / 1e6),
            )
            for name, run in runs
        ],
    )


def recovery(part: Figures) -> Iterator[str]:
    """A worker killed in mid-chunk, of `benchmarks.scale.recovery`."""
    yield made_on(part)
    yield ""
    runs = [(name, run) for kind, name in DATABASES.items() if kind in part for run in part[kind]]
    yield from table(
        ("database", "chunks in work at the kill", "put back after, s", "job finished after, s"),
        [(name, str(run["chunks"]), f"{run['put_back_s']:.1f}", f"{run['finished_s']:.1f}") for name, run in runs],
    )


def passed(run: Figures) -> tuple[str, ...]:
    return (
        f"{run['wall_s']:.1f}",
        f"{run['cpu_s']:.1f}",
        f"{run['server_cpu_s']:.1f}" if run["server_cpu_s"] else "",
        f"{run['peak_mb']:.0f}",
    )


def by(runs: Figures, what: str) -> list[Any]:
    return sorted(runs.values(), key=lambda run: run[what])


def made_on(part: Figures) -> str:
    at = part["machine"]
    return f"`{at['command']}`: {at['cores']} cores ({at['architecture']}), Python {at['python']}, {at['date']}."


def cost(run: Figures, process: str) -> str:
    if process not in run["cpu_us"]:
        return ""
    steady = (run["steady_cpu_us"] or {}).get(process)
    return f"{number(steady)} ({number(run['cpu_us'][process])})"


def resident(run: Figures, process: str) -> str:
    sizes = run["resident_mb"].get(process)
    if not sizes or not sizes["first"]:
        return ""
    return f"{sizes['first']:.1f} → {sizes['last']:.1f} ({sizes['last'] / sizes['first'] - 1:+.1%})"


TABLES: dict[str, Callable[[Figures], Iterator[str]]] = {
    "annotate": annotate,
    "stages": stages,
    "registration": registration,
    "workers": workers,
    "status": status,
    "recovery": recovery,
}


if __name__ == "__main__":
    main()
