"""``report.json``: every figure of a result, in one unit everywhere (ms, bytes, percent).

The models below are the format: their JSON Schema ships as ``report.schema.json``, and the table
in ``docs/report.md`` is made from their descriptions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table as Grid
from rich.text import Text

__all__ = ["Report", "reference", "render", "schema"]

SCHEMA: Literal["ofa-report/1"] = "ofa-report/1"


def _about(text: str, **more: Any) -> Any:
    return Field(description=text, **more)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckpointName(_Part):
    """The supernet that the subnet was cut from."""

    name: str = _about("folder name")
    sha256: str = _about("of weights.safetensors")


class DeviceName(_Part):
    """The device that the subnet was cut for."""

    name: str = _about("profile name")
    title: str = _about("for people")
    runtime: str = _about("runtime, version and delegate that the latency is of")
    grade: str = _about("A to D: how well the profile predicts networks that it was not fitted to")


class BudgetKept(_Part):
    """One budget, and whether the result keeps it."""

    quantity: str = _about("latency, macs, parameters, sram or flash")
    limit: float = _about("the budget")
    unit: str = _about("of limit, value and bound")
    value: float = _about("of the result: the point prediction, or the measured 90th percentile")
    bound: float = _about("what the budget is checked against: the upper bound of value")
    confidence: float | None = _about("of the bound; null where the value is exact or measured")
    kept: bool = _about("bound <= limit")


class Share(_Part):
    """A share of right answers, in percent."""

    value: float = _about("percent")
    n: int = _about("images")


class ShareWithInterval(Share):
    """A share of right answers with its 95 % Wilson interval, in percent."""

    low: float = _about("lower end of the interval")
    high: float = _about("upper end of the interval")


class Accuracy(_Part):
    """Top-1 in percent."""

    estimated: float = _about("by the accuracy model, before the candidates were scored")
    held_out: Share = _about("on the images that the choice was made by")
    test: ShareWithInterval = _about("on the test images, scored once, for the winner only")
    test_float32: ShareWithInterval | None = _about(
        "the same before quantization; null of a float32 network"
    )


class Finetuned(_Part):
    """What training the chosen subnet alone gained, in percent of right answers."""

    seconds: float = _about("that it was trained")
    steps: int
    epochs: float = _about("passes over the images")
    images: int = _about("that it was trained on")
    before: Share = _about("as it was cut from the supernet, on held-out images")
    after: Share = _about("trained, on the same images")
    kept: bool = _about("whether the files are of the trained one: only if it is better")

    def __str__(self) -> str:
        change = f"{self.before.value:.1f} to {self.after.value:.1f} %"
        verdict = f"{self.after.value - self.before.value:+.1f} points" if self.kept else "not kept"
        return (
            f"{verdict}: {change} on {self.after.n} held-out images, by {self.steps} steps "
            f"({self.epochs:.1f} epochs of {self.images} images, {self.seconds:.0f} s)"
        )


class Measured(_Part):
    """A latency in ms, measured, or as a compiler estimates it."""

    median: float
    p90: float
    runs: int
    runtime: str
    counted: Literal["runs", "repeats", "estimates"] = _about(
        "what `runs` counts: single ones, repeats of which the device's program tells the mean, or "
        "estimates of a compiler",
        default="runs",
    )


class Latency(_Part):
    """Latency on the device, in ms."""

    point: float = _about("prediction")
    bound: float = _about("holds with `confidence`")
    confidence: float
    measured: Measured | None = _about("on the device, where it or its compiler was at hand")


class Memory(_Part):
    """Memory that the network needs on the device, in bytes."""

    sram_bytes: int = _about(
        "on a microcontroller without an NPU the tensor arena; on an Ethos-U what its compiler "
        "plans in SRAM, with 16 KiB for the interpreter where that is there too; elsewhere the "
        "activations that exist at once, to which a runtime adds its own"
    )
    flash_bytes: int = _about("size of the TFLite file, of an Ethos-U of the compiled one")


class Candidate(_Part):
    """One of the subnets that were scored on images."""

    architecture: str
    estimated: float = _about("percent, by the accuracy model")
    held_out: Share
    latency_ms: float = _about("point prediction, or what the device's compiler says")


class Ranking(_Part):
    """How well the accuracy model ranks subnets that it was not fitted to (Kendall's tau)."""

    overall: float
    within_bands: float = _about("mean over bands of equal MACs")
    bands: int
    n: int = _about("evaluated subnets")


class Certificate(_Part):
    """How far the result is from the best that any architecture can be, under the tables.

    It certifies the search. What it does not cover is the accuracy model's own error: an
    evaluation of the chosen subnet is expected between ``low`` and ``high``.
    """

    unit: str = _about("of best, chosen and gap: of what the objective makes best")
    best: float = _about("no architecture within the budgets is better; proven")
    chosen: float = _about("of the result, under the same tables")
    gap: float = _about(
        "between the two; more than 0 where another candidate was taken, by images, say"
    )
    low: float = _about("accuracy in percent, lower end of the model's 95 % interval")
    high: float = _about("upper end")


class Search(_Part):
    """How the subnet was found."""

    strategy: str = _about("of `ofa-specialize --strategy`")
    evaluations: int = _about("architectures priced, in the last search")
    seconds: float
    scored: int = _about("new subnets scored on images to refine the accuracy model; --evaluations")
    accuracy_model: Ranking
    certificate: Certificate
    candidates: list[Candidate]


class File(_Part):
    """A file of the result."""

    path: str = _about("relative to the report")
    format: str
    precision: str | None
    bytes: int
    sha256: str


class Agreement(_Part):
    """The files run against each other and against the float network, on the test images."""

    images: int
    largest_difference: float = _about("of any logit, between any two")
    agreeing: int = _about("images with the same top-1 everywhere")


class Report(_Part):
    """The whole result."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", title="ofa report", populate_by_name=True
    )

    schema_: Literal["ofa-report/1"] = _about("version of this format", alias="schema")
    command: str = _about("what to run for the same result")
    seed: int
    versions: dict[str, str]
    checkpoint: CheckpointName
    device: DeviceName
    objective: str = _about("what is best within the budgets")
    budgets: list[BudgetKept]
    architecture: str = _about("canonical text; `ofa-train --arch` takes it")
    resolution: int = _about("pixels")
    macs: int
    parameters: int
    accuracy: Accuracy
    finetuned: Finetuned | None = _about("what `--finetune` gained; null without", default=None)
    latency_ms: Latency
    host_latency_ms: list[Measured] = _about("the files on this machine, one thread")
    memory: Memory
    search: Search
    preprocessing: dict[str, Any] = _about(
        "layout, range, mean, std (on that range), resize, filter"
    )
    labels: list[str] = _about("class names in the order of the outputs")
    verified: Agreement
    files: list[File]
    timings: dict[str, float] = _about("seconds of each step")
    warnings: list[str] = _about("what the figures do not cover, one sentence each")

    def to_json(self) -> str:
        """The text of ``report.json``."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"


def render(report: Report, folder: str) -> Grid:
    """The report for a terminal."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        grid.add_row(name, Text(text))

    test, held = report.accuracy.test, report.accuracy.held_out
    row(
        "device",
        f"{report.device.title} (profile {report.device.name}, grade {report.device.grade})",
    )
    row("supernet", report.checkpoint.name)
    if report.objective != "highest accuracy":
        row("objective", report.objective)
    for budget in report.budgets:
        verdict = "kept" if budget.kept else "NOT KEPT"
        if budget.confidence is None:
            value = f"{budget.value:.4g} {budget.unit}"
        else:
            value = (
                f"{budget.value:.4g} {budget.unit} predicted, at most {budget.bound:.4g} "
                f"{budget.unit} with {100 * budget.confidence:.0f} % confidence"
            )
        row("budget", f"{budget.quantity} {budget.limit:g} {budget.unit}: {verdict}; {value}")
    if report.latency_ms.measured is not None:
        m = report.latency_ms.measured
        if m.counted == "estimates":
            row("compiled", f"{m.median:.4g} ms: the estimate of {m.runtime}, nothing ran")
        else:
            took = f"{m.median:.2f} ms median, {m.p90:.2f} ms p90 of {m.runs} {m.counted}"
            row("measured", f"{took}, {m.runtime}")
    row(
        "accuracy",
        f"{test.value:.1f} % on {test.n} test images ({test.low:.1f} to {test.high:.1f}); "
        f"{held.value:.1f} % on {held.n} held-out images",
    )
    plain = report.accuracy.test_float32
    if plain is not None:
        row("", f"before quantization {plain.value:.1f} % ({plain.low:.1f} to {plain.high:.1f})")
    if report.finetuned is not None:
        row("fine-tuned", str(report.finetuned))
    row("network", report.architecture)
    row(
        "",
        f"{report.resolution} px, {report.macs / 1e6:.3g} MMACs, "
        f"{report.parameters / 1e6:.2f} M parameters, {_size(report.memory.sram_bytes)} of memory "
        "while it runs",
    )
    proof = report.search.certificate
    source = "accuracy model" if proof.unit == "%" else "tables"
    row(
        "proof",
        f"{proof.chosen:.4g} {proof.unit} by the {source}, where no architecture is better "
        f"than {proof.best:.4g}; the accuracy model's own 95 % interval: {proof.low:.1f} to "
        f"{proof.high:.1f} %",
    )
    verified = report.verified
    row(
        "verified",
        f"files equal within {verified.largest_difference:.1g} on {verified.images} images"
        if plain is None
        else f"int8 files and float network answer {verified.agreeing} of {verified.images} "
        "images alike",
    )
    for m in report.host_latency_ms:
        row("this machine", f"{m.median:.2f} ms median, {m.p90:.2f} ms p90, {m.runtime}, 1 thread")
    for warning in report.warnings:
        row("note", warning)
    for file in report.files:
        row("file", f"{folder}/{file.path}  {_size(file.bytes)}")
    row("page", f"{folder}/report.html")
    row("took", f"{report.timings['total']:.1f} s")
    return grid


def _size(count: int) -> str:
    if count < 1e3:
        return f"{count} bytes"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def schema() -> str:
    """The JSON Schema of a report, as ``report.schema.json`` ships it."""
    return json.dumps(Report.model_json_schema(by_alias=True), indent=1) + "\n"


def reference() -> str:
    """The Markdown table of every key, as ``docs/report.md`` holds it."""
    lines = ["| key | type | meaning |", "| --- | --- | --- |"]

    def describe(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            key = f"{prefix}{field.alias or name}"
            parts = [field.annotation, *get_args(field.annotation)]
            inner = next((p for p in parts if isinstance(p, type) and issubclass(p, _Part)), None)
            many = get_origin(field.annotation) is list
            about = " ".join((field.description or (inner.__doc__ if inner else "") or "").split())
            kind = "object" if inner else _kind(field.annotation)
            lines.append(
                f"| `{key}` | {f'list of {kind}s' if many and inner else kind} | {about} |"
            )
            if inner:
                describe(inner, f"{key}{'[]' if many else ''}.")

    describe(Report, "")
    return "\n".join(lines) + "\n"


def _kind(annotation: Any) -> str:
    text = annotation.__name__ if annotation in (str, int, float, bool) else str(annotation)
    for word in ("typing.", "<class '", "'>"):
        text = text.replace(word, "")
    return text.replace("|", "or")


if __name__ == "__main__":  # writes the schema and the reference anew
    here = Path(__file__).parent
    (here / "report.schema.json").write_text(schema())
    page = here.parent / "docs" / "report.md"
    head, _, rest = page.read_text().partition("| key |")
    _, _, tail = rest.partition("\n\n")
    page.write_text(head + reference() + (f"\n{tail}" if tail else ""))
