"""``ofa-train``: train a supernet, once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ofa.console import run, version_option
from ofa.errors import UserError
from ofa.machine import check_torch

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# glibc gives freed memory back and asks for it again at every step of training; keeping it is up to
# 1.35 times as fast (docs/training.md). It reads these when a process starts.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


#: Of those that ``torchrun`` starts each process has its share.
_THREADS = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR|ZIP|imagenette|cifar10",
            help="Images as class/name.jpg, with or without train/ and val/; "
            "or a data set that torchvision downloads.",
        ),
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The checkpoint's folder.")
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="DIR|ZIP", help="Test images; else the val/ of --data, if any."),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The space to train; by default that of an --init checkpoint, else lite.",
        ),
    ] = "",
    init: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR|FILE.pth|none",
            help="Published weights (efficientnet-lite0), a checkpoint to continue from or to give "
            "other classes (lite-imagenette), a .pth file of the research code, or none.",
        ),
    ] = "efficientnet-lite0",
    teacher: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR",
            help="A checkpoint of the same classes, the most accurate subnet of which teaches; "
            "it should be clearly better than the largest subnet here.",
        ),
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="pretrained, scratch, shrink, sandwich, tiny, refine, tiny-refine, tiny-taught or "
            "adapt; by default as fits --init, --space and --teacher.",
        ),
    ] = "",
    hours: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Time to train; by default 2, or 0.1 for other classes on a trained supernet. "
            "Evaluation comes on top.",
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.001, help="Passes over the images, in place of --hours.")
    ] = None,
    arch: Annotated[
        str, typer.Option(metavar="ARCH", help="Train this one architecture alone.")
    ] = "",
    subnets: Annotated[
        int | None,
        typer.Option(
            min=2, help="Subnets to evaluate for the card; by default as the recipe says."
        ),
    ] = None,
    held_out: Annotated[
        int, typer.Option(min=2, help="Training images held out to choose subnets by.")
    ] = 1500,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a process.")] = _THREADS,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output after a stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        version_option("ofa-train"),
    ] = False,
) -> None:
    """Train a supernet by progressive shrinking, and evaluate its subnets.

    Examples:

      ofa-train --data photos/ --output checkpoints/photos --hours 2

      ofa-train --data photos/ --output checkpoints/photos --init lite-imagenette

      ofa-train --data train.zip --test val.zip --output checkpoints/mine --epochs 20

    Exit codes: 0 done, 1 a bug, 2 something you can mend, 130 interrupted (--resume continues).
    """
    if context.invoked_subcommand is not None:
        return
    for option, value in (("--data", data), ("--output", output)):
        if not value:
            raise UserError(f"missing option '{option}'", fix="`ofa-train -h` shows what there is")
    check_torch("training", "ofa-train")
    from ofa.pipeline import Options, train_supernet

    train_supernet(
        Options(
            data=data, output=Path(output or "."), test=test, space=space, init=init,
            teacher=teacher, recipe=recipe, hours=hours, epochs=epochs, arch=arch, subnets=subnets,
            held_out=held_out, threads=threads, seed=seed, resume=resume, quiet=quiet,
        )
    )  # fmt: skip


@app.command()
def evaluate(
    checkpoint: Annotated[str, typer.Argument(metavar="NAME|DIR", help="The supernet.")],
    more: Annotated[int, typer.Option(min=1, help="Subnets to evaluate.")] = 50,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|ZIP",
            help="The images that it was trained on: the held-out ones among them are scored. "
            "Without: the held-out images that the checkpoint ships.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = os.cpu_count() or 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Evaluate more subnets, those that tell most, for a better accuracy model.

    Example:

      ofa-train evaluate checkpoints/photos --more 50
    """
    check_torch("evaluating", "ofa-train")
    from ofa.pipeline import evaluate_more

    evaluate_more(checkpoint, data, more, threads, quiet)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE.pth", help="A supernet's weights.")],
    space: Annotated[
        str, typer.Option(metavar="NAME", help="mbv3-w1.0, mbv3-w1.2 or proxyless-w1.3.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR|ZIP",
            help="Labelled images of the file's classes: subnets are evaluated on some of them.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The checkpoint's folder.")
    ],
    subnets: Annotated[int, typer.Option(min=2, help="Subnets to evaluate for the card.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = os.cpu_count() or 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Make a checkpoint of a supernet of the research code (mit-han-lab/once-for-all).

    Example:

      ofa-train convert ofa_mbv3_d234_e346_k357_w1.0.pth --space mbv3-w1.0 --data val/ -o mbv3
    """
    check_torch("converting", "ofa-train")
    from ofa.pipeline import Teller, convert

    convert(file, space, data, output, subnets, threads, Teller(quiet))


@app.command()
def average(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="NAME|DIR...", help="Each continues the one before.")
    ],
    data: Annotated[
        Path, typer.Option(metavar="DIR|ZIP", help="The images that they were trained on.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The checkpoint's folder.")
    ],
    test: Annotated[
        Path | None,
        typer.Option(metavar="DIR|ZIP", help="Test images; else the val/ of --data, if any."),
    ] = None,
    subnets: Annotated[int, typer.Option(min=2, help="Subnets to evaluate for the card.")] = 250,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = os.cpu_count() or 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Average a supernet with those that were trained on from it: often better than each.

    Example:

      ofa-train average first second third --data photos/ --output checkpoints/photos
    """
    check_torch("evaluating", "ofa-train")
    from ofa.pipeline import average

    average(checkpoints, data, test, output, subnets, threads, quiet)


def main() -> None:
    """Entry point."""
    asks = {"-h", "--help", "--version"} & set(sys.argv[1:])
    if sys.platform == "linux" and not asks and "MALLOC_TOP_PAD_" not in os.environ:
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **KEEP_MEMORY})
    run(app)


if __name__ == "__main__":
    main()
