"""``ofa-device``: what devices there are, and how far their profiles can be trusted."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ofa.console import run

if TYPE_CHECKING:
    from devices.profile import Profile

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="What networks cost on devices.\n\n"
    "Examples:\n\n  ofa-device list pixel\n\n  ofa-device show rpi4",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]

_GRADES = {
    "A": "30 networks or more, within 5 % on networks left out",
    "B": "12 networks or more, within 10 % on networks left out",
    "C": "few or old measurements, within 20 % on networks left out",
    "D": "two or three networks, or an error above 20 %: an indication, not a promise",
}
_HOSTS = {
    "host": "this machine, LiteRT, 1 thread: measured when you specialize",
    "host-onnxruntime": "this machine, ONNX Runtime, 1 thread: measured when you specialize",
}


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda v: _version(v), help="And exit."),
    ] = False,
) -> None:
    """What networks cost on devices."""


@app.command("list")
def list_devices(
    text: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Only devices whose name or title has it.")
    ] = "",
    json: Json = False,
) -> None:
    """List the devices: phones, boards, microcontrollers."""
    from rich.table import Table

    from devices.profile import load_profiles
    from ofa.console import stdout
    from ofa.errors import UserError

    wanted = text.casefold()
    found = [
        p
        for p in load_profiles()
        if any(wanted in word.casefold() for word in (p.name, p.title, p.hardware.soc, *p.aliases))
    ]
    hosts = {name: about for name, about in _HOSTS.items() if wanted in f"{name} {about}"}
    if not found and not hosts:
        raise UserError(f"no device matches {text!r}", fix="`ofa-device list` shows all")
    if json:
        sys.stdout.write(jsonlib.dumps([_brief(p) for p in found], indent=1) + "\n")
        return
    console = stdout()
    for kind in ("phone", "board", "microcontroller", "this machine"):
        group = [p for p in found if p.kind == kind]
        if not group:
            continue
        grid = Table(title=f"{kind}s", title_justify="left", title_style="bold", box=None)
        for name in ("name", "also", "title", "precision", "grade", "error"):
            grid.add_column(name, no_wrap=name != "title", overflow="fold")
        for p in group:
            aliases, error = ", ".join(p.aliases[:2]), f"{p.typical_error:.1f} %"
            grid.add_row(p.name, aliases, p.title, p.runtime.precision, p.grade, error)
        console.print(grid)
        console.print()
    for name, about in hosts.items():
        console.print(f"{name}  {about}")
    console.print("\nerror: of networks left out of the fit. `ofa-device show NAME` tells more.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name, alias, or a profile file.")], json: Json = False
) -> None:
    """Show one device: hardware, runtime, errors, bounds, where its data came from."""
    from devices.profile import get_profile
    from ofa.console import stdout

    if name in _HOSTS:
        stdout().print(f"{name}: {_HOSTS[name]}")
        return
    profile = get_profile(name)
    if json:
        sys.stdout.write(jsonlib.dumps(profile.as_dict(), indent=1) + "\n")
        return
    console = stdout()
    for key, value in _describe(profile):
        console.print(f"{key:<12} {value}", markup=False)


def _brief(p: Profile) -> dict[str, object]:
    return {
        "name": p.name, "aliases": list(p.aliases), "title": p.title, "kind": p.kind,
        "runtime": str(p.runtime), "precision": p.runtime.precision, "grade": p.grade,
        "error_percent": p.typical_error,
    }  # fmt: skip


def _describe(p: Profile) -> list[tuple[str, str]]:
    hardware = p.hardware
    rows = [
        ("name", p.name + (f" (also {', '.join(p.aliases)})" if p.aliases else "")),
        ("title", p.title),
        (
            "hardware",
            f"{hardware.device}, {hardware.soc}, {hardware.core}, {hardware.clock_ghz} GHz",
        ),
        ("cores", hardware.cores),
        ("runtime", f"{p.runtime}, batch {p.runtime.batch}"),
        ("grade", f"{p.grade}: {_GRADES[p.grade]}"),
    ]
    if p.limits is not None:
        sram, flash = p.limits.sram_bytes, p.limits.flash_bytes
        rows.append(("memory", f"SRAM {sram} B, flash {flash} B. {p.limits.note}"))
    for way, figures in p.errors.items():
        text = f"{figures['mape']:.1f} % mean error on {figures['n']:.0f} networks ({way})"
        rows.append(("error", text))
    factors = ", ".join(f"{100 * c:g} %: x{f:.3f}" for c, f in p.bound.items())
    rows.append(("bound", f"{factors} (confidence: factor on the prediction)"))
    low, high = p.valid.resolution
    rows.append(("valid", f"{low:g} to {high:g} px, {p.valid.ms[0]:g} to {p.valid.ms[1]:g} ms"))
    rows.append(("families", ", ".join(p.valid.families)))
    for key in ("source", "commit", "files", "licence", "paper", "statistic", "date", "excluded"):
        if key in p.provenance:
            value = p.provenance[key]
            rows.append((key, ", ".join(value) if isinstance(value, list) else str(value)))
    if p.mix_of:
        rows.append(("mix of", ", ".join(f"{w:.2f} {name}" for name, w in p.mix_of.items())))
    rows += [("note", note) for note in p.notes]
    return rows


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"ofa-device {version('ofa-specializer')}\n")
        raise typer.Exit


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
