"""Cost of an image against the size of the archive: one panel a database, one line a kind of process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.scale.markdown import DATABASES

MARKS = {
    "loaders": ("o", "-", "black"),
    "worker": ("s", "-", "#1f5fa8"),
    "annotate": ("^", "-", "#c45a00"),
    "PostgreSQL": ("D", "-", "#2e7d32"),
    "Redis": ("v", "--", "#7a3b8f"),
    "keepers": ("x", ":", "#777777"),
}
"""Marker, line and colour: told apart in grey as well."""


def plot(annotate: Mapping[str, Any], path: Path) -> None:
    """Draw the `annotate` part of the figures into a PNG of some tens of kilobytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    kinds = [kind for kind in DATABASES if kind in annotate]
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(5 * len(kinds), 4.2), sharey=True, squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=True):
        _draw(panel, list(annotate[kind].values()))
        panel.set_title(DATABASES[kind])
        panel.set(xscale="log", yscale="log", xlabel="images")
        panel.set_xticks(sorted({run["images"] for kind in kinds for run in annotate[kind].values()}))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.grid(True, which="major", linewidth=0.4, color="#cccccc")
    panels[0][0].set_ylabel("CPU µs an image")
    lines = {line.get_label(): line for panel in panels[0] for line in panel.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw(panel: Any, runs: list[Any]) -> None:
    runs = sorted(runs, key=lambda run: run["images"])
    for kind, (marker, line, colour) in MARKS.items():
        points = [(run["images"], (run["steady_cpu_us"] or {}).get(kind, 0.0)) for run in runs]
        points = [(images, cost) for images, cost in points if cost > 0]
        if points:
            x, y = zip(*points, strict=True)
            panel.plot(x, y, marker=marker, linestyle=line, color=colour, label=kind, markersize=5)
    whole = [(run["images"], sum(run["cpu_us"].values())) for run in runs]
    x, y = zip(*whole, strict=True)
    panel.plot(x, y, linestyle="-.", color="#b00020", linewidth=1, label="all, start included")
