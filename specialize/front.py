"""The whole front of the result's device as files: a picture, and a table."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec

import numpy as np

from ofa.errors import UserError
from ofa.layers import lower, macs, parameters
from ofa.space import Space
from specialize.page import Page, rows_of

__all__ = ["check_drawable", "front_csv", "front_png", "log_ticks"]


def check_drawable() -> None:
    """Raise UserError where matplotlib, an extra, is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError("front.png needs matplotlib", "--pareto", "pip install '.[plots]'")


def front_csv(page: Page, space: Space) -> bytes:
    """Each network of the front: latency and its bound in ms, accuracy in percent, size."""
    device = page.figures["devices"][0]
    file = io.StringIO()
    out = csv.writer(file, lineterminator="\n")
    out.writerow(["latency_ms", "bound_ms", "estimated_accuracy", "macs", "parameters", "arch"])
    rows = rows_of(device["rows"], space)
    for ms, percent, row in zip(device["ms"], device["percent"], rows, strict=True):
        arch = space.decode(row)
        layers = lower(space, arch)
        bound = f"{ms * device['factor']:.4g}"
        out.writerow([ms, bound, percent, macs(layers), parameters(layers), str(arch)])
    return file.getvalue().encode()


def front_png(page: Page) -> bytes:
    """The front of the result's device, and the chosen network on it."""
    from matplotlib.figure import Figure  # imported here: it takes longer than the page
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    device, chosen = page.figures["devices"][0], page.figures["chosen"]
    confidence = f"{100 * device['confidence']:.0f} % confidence"
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    bounds = np.array(device["ms"]) * device["factor"]
    axes.step(
        bounds, device["percent"], where="post", color="#0b5aa6", label="exact front, estimated"
    )
    at = page.report.latency_ms.bound
    axes.errorbar(
        at, chosen["test"],
        yerr=[[chosen["test"] - chosen["low"]], [chosen["high"] - chosen["test"]]],
        fmt="D", color="#a3410a", capsize=4,
        label=f"chosen network: {chosen['images']} test images, 95 % interval",
    )  # fmt: skip
    for budget in page.report.budgets:
        if budget.quantity == "latency":
            axes.axvline(
                budget.limit, color="#1b1d20", lw=1, ls="--", label=f"budget {budget.limit:.4g} ms"
            )
    axes.set_xscale("log")
    axes.set_xticks(log_ticks(*axes.get_xlim()))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"Latency, ms (bound with {confidence})")
    axes.set_ylabel("Top-1 accuracy, %")
    axes.set_title(device["title"], loc="left")
    axes.grid(color="#dcdee2", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    file = io.BytesIO()
    # Without its version, so that the same result gives the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low > 40 else (1, 1.5, 2, 3, 4, 5, 7)
    return [float(s * d) for d in decades for s in steps if low <= s * d <= high]
