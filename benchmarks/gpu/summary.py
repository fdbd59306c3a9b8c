# ruff: noqa: T201
"""What the rates mean: how much of the roofline they reach, and how far ahead of transformers they are."""

from benchmarks.gpu import costs
from benchmarks.gpu.setting import Figures, Setting

TARGETS = {21: (900, 1200), 32: (800, 1100), 64: (600, 850)}
"""Mean length → images/s at 512 slots on an H200, by a prediction: what must be, and the goal."""
LEADS = {1: 200, 64: 8, 256: 3}
"""Batch size of transformers → how many times its rate the engine must have."""


def summary(setting: Setting) -> Figures:
    """The engine's rows with their shares and ratios. Needs the figures of `probe` and `rates`."""
    probe, rates = (setting.found.get(part, {"error": "has not run"}) for part in ("probe", "rates"))
    for part, figures in (("probe", probe), ("rates", rates)):
        if "error" in figures:
            raise ValueError(f"the figures of {part} are needed, in this run or in the --json file: {figures['error']}")
    rows = []
    for row in rates["engine"]:
        best = costs.serial_roofline(
            setting.sizes.shape, row["slots"], row["mean"], probe["product_flop_s"], probe["copy_bytes_s"]
        )
        ratios = {
            str(rival["batch"]): row["images_s"] / rival["images_s"]
            for rival in rates["transformers"]
            if rival["mean"] == row["mean"]
        }
        rows.append(row | {"roofline_images_s": best, "roofline_share": row["images_s"] / best, "ratios": ratios})
        print(
            f"  {row['slots']:>5} slots, mean {row['mean']:>3}, {'compiled' if row['compiled'] else 'eager':<8}: "
            f"{row['images_s']:>8.1f} images/s, {row['images_s'] / best:.2f} of the roofline, "
            f"occupancy {row['occupancy']:.2f}, prefill {row['prefill_share']:.2f}, decode {row['decode_share']:.2f}, "
            f"host {row['host_share']:.2f}; × transformers: "
            + ", ".join(f"{ratio:.1f} (batch {batch})" for batch, ratio in ratios.items()),
            flush=True,
        )
    return {"rows": rows, "targets_images_s": TARGETS, "targets_ratio": LEADS}
