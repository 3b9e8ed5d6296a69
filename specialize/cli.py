"""``ofa-specialize``: the most accurate subnet for a device and a budget, as files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa.console import run, version_option
from ofa.errors import UserError

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def specialize(
    context: typer.Context,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A device of `ofa-device list`, a profile file, or this machine: "
            "host (LiteRT), host-onnxruntime. Repeated: a subnet for each, and a comparison.",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE", help="With its unit: 20ms, 300MMACs, 3Mparams; may be repeated."
        ),
    ] = None,
    sram: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE",
            help="For the activations that exist at once, on a microcontroller for the arena: "
            "256kB, 1MiB.",
        ),
    ] = None,
    flash: Annotated[
        str | None,
        typer.Option(metavar="VALUE", help="For the TFLite file, as compiled: 900kB, 4MB."),
    ] = None,
    minimize: Annotated[
        str | None,
        typer.Option(
            metavar="QUANTITY",
            help="latency, macs, parameters, sram or flash: the least with at least "
            "--min-accuracy.",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="What --minimize must reach.")
    ] = None,
    tradeoff: Annotated[
        float | None,
        typer.Option(
            metavar="WEIGHT", help="Maximize accuracy in % + WEIGHT * log(latency in ms); below 0."
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(metavar="NAME", help="evolution, exact, random, reinforce or gradient."),
    ] = "evolution",
    evaluations: Annotated[
        int,
        typer.Option(
            min=0, help="Subnets near the budget to score on images first, a second or two each."
        ),
    ] = 0,
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR|FILE.pth",
            help="The supernet to cut from; by default mcu-cifar10 for microcontrollers, "
            "lite-imagenette for all others.",
        ),
    ] = "",
    space: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Of a --checkpoint that is a .pth file of the research code (mbv3-w1.0): it is "
            "converted once, its subnets evaluated on --images.",
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Default: named after device and budget."
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(min=0.5, max=0.99, help="With which the predicted latency keeps the budget."),
    ] = 0.9,
    candidates: Annotated[int, typer.Option(min=1, help="Subnets to score on real images.")] = 10,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|ZIP",
            help="Your own images of the checkpoint's classes, class/name.jpg, to recalibrate "
            "and choose with.",
        ),
    ] = None,
    finetune: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Train the chosen subnet alone on --images for that long (5m, 90s, 1h), and keep "
            "it if it is better on those held out; needs the train extra.",
        ),
    ] = "",
    pareto: Annotated[
        bool,
        typer.Option("--pareto", help="Write the whole front too: front.csv and front.png."),
    ] = False,
    serial: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERIAL", help="Of a connected phone of that device: candidates are measured."
        ),
    ] = None,
    ssh: Annotated[
        str | None, typer.Option(metavar="HOST", help="The same for a board, as ssh takes it.")
    ] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TFLite's benchmark_model for that device; alone, it runs on the only phone.",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="float32|int8", help="Of the files; by default what the device's profile is of."
        ),
    ] = "",
    runtime: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="What will run the file there, as 'tflite 2.16, 4 threads, gpu': a profile of "
            "something else is refused.",
        ),
    ] = "",
    assume_runtime: Annotated[
        bool,
        typer.Option("--assume-runtime", help="Take it all the same, with a wider bound."),
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for scoring.")] = os.cpu_count()
    or 1,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Same seed, same files, on one kind of processor (not with --finetune, nor where "
            "a device is measured).",
        ),
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that holds other files.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print report.json instead.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        version_option("ofa-specialize"),
    ] = False,
) -> None:
    """Find, cut and export the subnet that is most accurate on a device within a budget.

    Examples:

      ofa-specialize --device pixel --budget 20ms

      ofa-specialize --device rpi4 --budget 30ms --budget 3Mparams --json

      ofa-specialize --device pixel --minimize latency --min-accuracy 94

      ofa-specialize --device pixel --device rpi4 --device iphonexs --budget 20ms

    Exit codes: 0 done, 1 a bug, 2 something you can mend, 130 interrupted.
    """
    if context.invoked_subcommand is not None:
        return
    if not device:
        raise UserError("missing option '--device'", fix="`ofa-specialize -h` shows what there is")
    from ofa.console import stderr, stdout
    from specialize.fleet import render as render_fleet
    from specialize.fleet import specialize_fleet
    from specialize.pipeline import specialize as main_job
    from specialize.report import render

    console = stderr()

    def tell(text: str) -> None:
        if not quiet:
            console.print(text, highlight=False, markup=False)

    options: dict[str, Any] = {
        "sram": sram, "flash": flash, "minimize": minimize, "min_accuracy": min_accuracy,
        "tradeoff": tradeoff, "strategy": strategy,
        "evaluations": evaluations, "checkpoint": checkpoint, "space": space, "output": output,
        "confidence": confidence, "candidates": candidates, "images": images, "finetune": finetune,
        "pareto": pareto,
        "serials": serial or (), "ssh": ssh, "benchmark": benchmark,
        "precision": precision, "runtime": runtime, "assume_runtime": assume_runtime,
        "threads": threads, "seed": seed, "force": force, "tell": tell,
    }  # fmt: skip
    if len(device) > 1:
        fleet = specialize_fleet(device, budget or (), **options)
        text, shown = fleet.fleet.to_json(), render_fleet(fleet)
    else:
        result = main_job(device[0], budget or (), **options)
        text, shown = result.report.to_json(), render(result.report, str(result.output))
    if json:
        sys.stdout.write(text)
    else:
        stdout().print(shown)


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="Of results: each holds a report.json.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page.")
    ] = Path("compare.html"),
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that is not such a page.")
    ] = False,
) -> None:
    """Show several results side by side, as one page.

    Example:

      ofa-specialize compare pixel-20ms rpi4-30ms
    """
    from ofa.console import stdout
    from specialize.compare import compare as write_page

    stdout().print(write_page(folders, output, force=force), markup=False, soft_wrap=True)


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
