"""``ofa-device``: the commands of ``devices.cli``, and those that need a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devices.cli import RUNTIMES, Benchmark, Json, Quiet, Serial, Ssh, app, teller, write_json
from ofa.console import run

if TYPE_CHECKING:
    from specialize.bench import Bench

__all__ = ["main"]

Supernet = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar="NAME|DIR",
        help="The supernet that is measured; by default as ofa-specialize takes it.",
    ),
]


@app.command()
def calibrate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the new profile: letters, digits, - and _.")
    ],
    like: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="host, host-onnxruntime, or the profile that is nearest to the device: it says "
            "how many threads run on which cores.",
        ),
    ] = "host",
    samples: Annotated[int, typer.Option(min=9, help="Subnets to measure.")] = 10,
    checkpoint: Supernet = "",
    serial: Serial = None,
    ssh: Ssh = None,
    benchmark: Benchmark = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a few subnets on a device, and make its profile of them.

    Examples:

      ofa-device calibrate my-laptop

      ofa-device calibrate my-phone --like pixel4 --benchmark android_aarch64_benchmark_model

    Interrupted, the same command goes on; with more --samples it adds to what was measured.
    """
    import re

    from devices.backends.vela import ACCELERATORS
    from devices.profile import get_profile, shipped_names, user_profiles
    from devices.reach import HOSTS, host_of
    from ofa.console import stdout
    from ofa.errors import UserError
    from specialize.calibration import calibrate as work

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"{name!r} cannot be the name of a profile", fix="such as my-phone")
    if name.casefold() in {*HOSTS, *RUNTIMES, *shipped_names()}:
        raise UserError(f"{name!r} is the name of another device", fix="such as my-phone")
    if like.endswith(".json"):
        raise UserError(
            "a profile is found again by its name", f"--like {like}",
            f"copy it into {user_profiles()} and give its name",
        )  # fmt: skip
    base = None if like in HOSTS else get_profile(like)
    if base is not None and (host := host_of(base)) is not None:  # calibrated here
        like, base = host, None
    if base is not None and base.hardware.device in ACCELERATORS:
        raise UserError(f"the compiler tells all of {like!r}: there is nothing to fit", "--like")
    bench = _bench(like, checkpoint, serial, ssh, benchmark, quiet)
    profile, path = work(name, bench, base, samples, tell=teller(quiet))
    if json:
        write_json(profile.as_dict())
        return
    left_out = profile.errors["leave_one_out"]
    stdout().print(
        f"{path}\n{left_out['mape']:.1f} % error on networks left out, one at a time; grade "
        f"{profile.grade}; 90 % of networks within {profile.bound[0.9]:.3f} x the prediction\n"
        f"`ofa-specialize --device {name}` takes it",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A calibrated profile.")],
    checkpoint: Supernet = "",
    serial: Serial = None,
    ssh: Ssh = None,
    benchmark: Benchmark = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure three subnets of a calibrated profile again: does it still hold?

    An update of the device's system or of the runtime changes latencies. Exit code 2 where a
    subnet takes over 10 % more or less than when the profile was made.
    """
    from devices.profile import get_profile
    from ofa.console import stdout
    from specialize.calibration import check as work
    from specialize.calibration import like_of

    profile = get_profile(name)
    found = work(profile, _bench(like_of(profile), checkpoint, serial, ssh, benchmark, quiet))
    if json:
        write_json({
            "name": profile.name, "holds": found.holds, "architectures": found.archs,
            "then_ms": found.then_ms, "now_ms": found.now_ms, "changed": found.changed,
        })  # fmt: skip
    else:
        rows = zip(found.archs, found.then_ms, found.now_ms, found.ratios, strict=True)
        for arch, then, now, ratio in rows:
            stdout().print(
                f"{then:.3g} ms then, {now:.3g} ms now ({ratio - 1:+.1%}): {arch}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        for change in found.changed:
            stdout().print(change, markup=False, highlight=False, soft_wrap=True)
        verdict = "holds" if found.holds else "no longer holds: calibrate under another name"
        stdout().print(f"{profile.name} {verdict}", markup=False, highlight=False)
    if not found.holds:
        raise typer.Exit(2)


def _bench(
    like: str,
    checkpoint: str,
    serial: list[str] | None,
    ssh: str | None,
    benchmark: Path | None,
    quiet: bool,
) -> Bench:
    from devices.profile import get_profile
    from devices.reach import HOSTS, reach
    from ofa.checkpoint import load_checkpoint
    from specialize.bench import Bench
    from specialize.pipeline import default_checkpoint

    checkpoint = checkpoint or default_checkpoint(like, teller(quiet))
    meter = reach(like, serials=serial or (), ssh=ssh, benchmark=benchmark, tell=teller(quiet))
    precision = "float32" if like in HOSTS else get_profile(like).precision
    return Bench(like, meter, load_checkpoint(checkpoint), precision)


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
