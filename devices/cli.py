"""``ofa-device``: what devices there are, and how far their profiles can be trusted."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from ofa.console import version_option

if TYPE_CHECKING:
    from devices.profile import Profile

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Found(Protocol):
    """What is known of a model file, printed or as JSON."""

    def as_dict(self) -> dict[str, Any]: ...


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Serial = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SERIAL",
        help="Of a phone, as `adb devices` lists it; repeated: a farm of phones of one kind, "
        "which share the work.",
    ),
]
Ssh = Annotated[str | None, typer.Option(metavar="HOST", help="A board, as ssh takes it.")]
Benchmark = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="TFLite's benchmark_model, built for the device; to measure .onnx files "
        "onnxruntime_perf_test.",
    ),
]

_GROUPS = {
    "phone": "phones",
    "board": "boards",
    "microcontroller": "microcontrollers",
    "this machine": "this machine",
}
_HOSTS = {
    "host": "LiteRT, 1 thread: measured when you specialize",
    "host-onnxruntime": "ONNX Runtime, 1 thread: measured when you specialize",
}
RUNTIMES = {
    "tflm": "TensorFlow Lite Micro's interpreter on this machine, int8: answers and arena",
    "cortex-m55": "Cortex-M55 emulated in QEMU, int8: answers, arena and instructions",
}
_NARROW = ("name", "title", "grade", "error")
_GRADES = {
    "A": "30 networks or more, within 5 % on networks left out of the fit",
    "B": "12 networks or more, within 10 % on networks left out of the fit",
    "C": "few, old or less direct measurements, within 20 % on networks left out of the fit",
    "D": "two or three networks, or an error above 20 %: an indication, not a promise",
}
_WAYS = {
    "train": "that it was fitted to",
    "kfold10": "left out, a tenth at a time",
    "family": "left out, a family at a time",
    "family_mobile": "left out, a family at a time, mobile ones",
    "group": "left out, a group at a time",
    "leave_one_out": "left out, one at a time",
    "scale": "by one factor on another profile",
    "scale_pairs": "measured on both devices, by the factor between them",
    "of_source": "of the profile that it is scaled from",
}


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        version_option("ofa-device"),
    ] = False,
) -> None:
    """What networks cost on devices.

    Examples:

      ofa-device list pixel

      ofa-device show rpi4 --json

    Exit codes: 0 done, 1 a bug, 2 something you can mend, 130 interrupted.
    """
    if context.invoked_subcommand is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(2)


@app.command("list")
def list_devices(
    text: Annotated[
        str,
        typer.Argument(metavar="TEXT", help="Only devices whose name, title or chip has it."),
    ] = "",
    json: Json = False,
) -> None:
    """List the devices: phones, boards, microcontrollers, this machine."""
    from devices.profile import load_profiles
    from ofa.errors import UserError

    def matches(*words: str) -> bool:
        return any(text.casefold() in word.casefold() for word in words)

    found = [p for p in load_profiles() if matches(p.name, p.title, p.hardware.soc, *p.aliases)]
    hosts = [name for name, about in _HOSTS.items() if matches(name, about, "this machine")]
    if not found and not hosts:
        raise UserError(f"no device matches {text!r}", fix="`ofa-device list` shows all")
    if json:
        write_json([*map(_brief, found), *map(_host, hosts)])
    else:
        _print_groups(found, hosts)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A name, an alias, or a profile file.",
            autocompletion=lambda incomplete: _names(incomplete),
        ),
    ],
    json: Json = False,
) -> None:
    """Show a device: hardware, runtime, errors, bounds, origin."""
    from devices.profile import get_profile
    from ofa.console import stdout

    host = name.casefold() in _HOSTS
    profile = None if host else get_profile(name)
    if json:
        write_json(_host(name.casefold()) if profile is None else profile.as_dict())
        return
    rows = _describe(profile) if profile else [("name", name), ("title", _HOSTS[name.casefold()])]
    console = stdout()
    for key, value in rows:
        console.print(f"{key:<10} {value}", markup=False, soft_wrap=True)


@app.command()
def measure(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="host, host-onnxruntime, or the profile of the device that is connected: "
            "it says how many threads run on which cores. An Ethos-U is asked of its compiler; "
            "tflm and cortex-m55 run int8 files in a microcontroller's runtime.",
            autocompletion=lambda incomplete: _names(incomplete),
        ),
    ],
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL", help="A .tflite, or an .onnx file; or several.")
    ],
    serial: Serial = None,
    ssh: Ssh = None,
    benchmark: Benchmark = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the latency of model files on a device: this machine, a phone, a board.

    Examples:

      ofa-device measure host pixel-20ms/model.tflite

      ofa-device measure pixel4 pixel-20ms/model.tflite --benchmark android_aarch64_benchmark_model

      ofa-device measure rpi4 model.tflite --ssh pi@raspberrypi --benchmark benchmark_model

      ofa-device measure cortex-m55 stm32h7-100ms/model.tflite
    """
    from devices.micro import check
    from devices.reach import Compiler, Unfinished, check_here, reach
    from ofa.console import stderr, stdout
    from ofa.errors import UserError

    for model in models:
        if not model.is_file():
            raise UserError("no such file", str(model))
        if model.suffix not in (".tflite", ".onnx"):
            raise UserError("neither a .tflite nor an .onnx file", str(model))
    kinds = {model.suffix for model in models}
    if len(kinds) > 1:
        raise UserError(f"files of several kinds: {', '.join(sorted(kinds))}", fix="one at a time")
    if name in RUNTIMES:
        check_here(name, serials=serial or (), ssh=ssh, benchmark=benchmark)
        if kinds != {".tflite"}:
            raise UserError(f"{name} takes .tflite files", str(models[0]))
        checked = [check(name, model) for model in models]
        _print_found(models, checked, json)
        return
    meter = reach(
        name, serials=serial or (), ssh=ssh, benchmark=benchmark,
        program="onnxruntime" if kinds == {".onnx"} else "tflite", tell=teller(quiet),
    )  # fmt: skip
    if kinds != {meter.suffix}:
        raise UserError(f"{name} takes {meter.suffix} files", str(models[0]))
    if isinstance(meter, Compiler):
        _print_found(models, meter.compile(models), json)
        return
    try:
        measured = meter.measure(models)
    except Unfinished as error:
        console = stderr() if json else stdout()  # the error is the JSON then
        for index, (one,) in sorted(error.found.items()):
            console.print(f"{models[index]}: {one}", markup=False, highlight=False, soft_wrap=True)
        raise
    _print_found(models, measured, json)


def _print_found(models: Sequence[Path], found: Sequence[_Found], json: bool) -> None:
    from ofa.console import stdout

    pairs = list(zip(models, found, strict=True))
    if json:
        write_json([{"model": str(model), **one.as_dict()} for model, one in pairs])
        return
    for model, one in pairs:
        stdout().print(f"{model}: {one}", markup=False, highlight=False, soft_wrap=True)


def teller(quiet: bool) -> Callable[[str], None]:
    """What progress is told to: standard error, or nobody."""
    from ofa.console import stderr

    console = stderr()

    def tell(text: str) -> None:
        if not quiet:
            console.print(text, highlight=False, markup=False)

    return tell


def _brief(p: Profile) -> dict[str, Any]:
    return {
        "name": p.name, "aliases": list(p.aliases), "title": p.title, "kind": p.kind,
        "runtime": str(p.runtime), "precision": p.runtime.precision, "grade": p.grade,
        "error_percent": p.typical_error,
    }  # fmt: skip


def _host(name: str) -> dict[str, Any]:
    """As ``_brief``, of this machine, where nothing is known before it is measured."""
    return {
        "name": name, "aliases": [], "title": f"this machine, {_HOSTS[name]}",
        "kind": "this machine", "runtime": _HOSTS[name].partition(",")[0], "precision": "float32",
        "grade": None, "error_percent": None,
    }  # fmt: skip


def _print_groups(found: list[Profile], hosts: list[str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ofa.console import stdout

    console = stdout()
    columns = ("name", "aliases", "title", "runtime", "precision", "grade", "error")
    for kind, heading in _GROUPS.items():
        rows: list[tuple[str, ...]] = [
            (p.name, ", ".join(p.aliases), p.title, p.runtime.software, p.runtime.precision,
             p.grade, f"{p.typical_error:.1f} %")
            for p in found if p.kind == kind
        ]  # fmt: skip
        if kind == "this machine":
            rows += [(name, "", _HOSTS[name], "", "float32", "-", "-") for name in hosts]
        if not rows:
            continue
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        # In a narrow terminal: what the title does not say.
        wide = sum(widths) + 2 * len(widths) <= console.width
        shown = [i for i, name in enumerate(columns) if wide or name in _NARROW]
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for i in shown:
            grid.add_column(
                columns[i],
                justify="right" if columns[i] == "error" else "left",
                min_width=None if columns[i] == "title" else widths[i],
            )
        for row in rows:
            grid.add_row(*(escape(row[i]) for i in shown))
        console.print(f"[bold]{heading}[/bold]")
        console.print(grid)
        console.print()
    console.print(f"{' and '.join(RUNTIMES)}: runtimes of microcontrollers on this machine, for")
    console.print("`ofa-device measure`.")
    console.print("error: mean of |predicted / actual - 1| on networks left out of the fit.")
    console.print("`ofa-device show NAME` tells more.")


def _describe(p: Profile) -> list[tuple[str, str]]:
    hardware = p.hardware
    clock = f"{hardware.clock_ghz:g} GHz" if hardware.clock_ghz else "clock not stated"
    rows = [
        ("name", p.name),
        ("aliases", ", ".join(p.aliases) or "none"),
        ("title", p.title),
        ("hardware", f"{hardware.device}, {hardware.soc}, {hardware.core}, {clock}"),
        ("cores", hardware.cores),
        ("runtime", f"{p.runtime}, batch {p.runtime.batch}"),
        ("grade", f"{p.grade}: {_GRADES[p.grade]}"),
    ]
    if p.limits is not None:
        sizes = (("SRAM", p.limits.sram_bytes), ("flash", p.limits.flash_bytes))
        known = [f"{what} {count / 1024:g} KiB" for what, count in sizes if count is not None]
        rows.append(("memory", "; ".join(filter(None, [", ".join(known), p.limits.note]))))
        if p.engine is not None:
            rows.append(("arena", f"TensorFlow Lite Micro with CMSIS-NN, {p.engine}"))
    for way, figures in p.errors.items():
        if "mape" in figures:
            count = f"{figures['n']:g} networks " if "n" in figures else "networks "
            rows.append(("error", f"{figures['mape']:.1f} % on {count}{_WAYS.get(way, way)}"))
    for confidence, factor in p.bound.items():
        rows.append(
            ("bound", f"{100 * confidence:g} % of networks within {factor:.3f} x the prediction")
        )
    (narrow, wide), (fast, slow) = p.valid.resolution, p.valid.ms
    pixels = f"{narrow:g}" if narrow == wide else f"{narrow:g} to {wide:g}"
    rows.append(("valid", f"{pixels} px, {fast:g} to {slow:g} ms"))
    rows.append(("families", ", ".join(p.valid.families)))
    rows.append(("fit", p.fit))
    if p.mix_of:
        rows.append(("mix of", ", ".join(f"{w:.3g} {name}" for name, w in p.mix_of.items())))
    for key, value in p.provenance.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((key.replace("networks_mobile", "mobile"), text))
    return rows + [("note", note) for note in p.notes]


def write_json(data: object) -> None:
    """Print JSON."""
    sys.stdout.write(jsonlib.dumps(data, indent=1) + "\n")


def _names(incomplete: str) -> list[str]:
    from devices.profile import load_profiles

    names = [name for p in load_profiles() for name in (p.name, *p.aliases)]
    return [name for name in (*_HOSTS, *RUNTIMES, *names) if name.startswith(incomplete)]
