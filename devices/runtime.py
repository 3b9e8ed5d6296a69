"""The runtime that will run a file, against the one that a profile was measured with.

A latency is of a runtime as much as of a device. Where the two differ a profile is refused, or,
where the user insists, its bounds are widened by the largest effect that was measured of such a
difference (docs/devices.md says where).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from devices.profile import CALIBRATED, Profile, get_profile, load_profiles
from devices.reach import Compiler, Local, Meter, here, host_of
from ofa.errors import UserError

__all__ = ["Use", "for_use", "parse_use", "profile_for", "runs_as_said"]

_OTHER_SOFTWARE = 1.8
_OTHER_DELEGATE = 6.7
_FLOAT_FOR_INT8 = 3.9
_MORE_THREADS = 1.1

#: What runs the operators; XNNPACK is what TFLite takes on a CPU.
_DELEGATES = {
    "cpu": "cpu", "xnnpack": "cpu", "gpu": "gpu", "npu": "npu", "nnapi": "nnapi",
    "builtin": "builtin",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Use:
    """How a file will be run; None: not said. software: name, or name and version."""

    software: str | None = None
    delegate: str | None = None
    threads: int | None = None
    precision: str = "float32"


def profile_for(
    name: str, runtime: str, assume: bool, meter: Meter | None = None, precision: str = ""
) -> tuple[Profile, str | None]:
    """A device's profile for how files will be run there; see ``for_use``.

    runtime: as ``parse_use`` takes it. precision: of the file; the profile's own by default. Of a
    calibrated profile the software is known without being told: what ``meter`` runs, or what is
    installed here. Raises UserError, also where ``meter`` is of another device.
    """
    profile = get_profile(name)
    use = parse_use(runtime, precision or profile.precision)
    source, device = profile.provenance.get("source"), profile.provenance.get("device")
    if source == CALIBRATED and meter is not None and device not in (None, meter.device):
        raise UserError(
            f"{name!r} was calibrated on {device}; this is {meter.device}",
            "--device",
            "calibrate it under another name",
        )
    if use.software is None and source == CALIBRATED and meter is not None:
        use = replace(use, software=f"{profile.runtime.name} {meter.software}")
    host = host_of(profile)
    if use.software is None and host is not None:
        use = replace(use, software=here(host).software)
    return for_use(profile, use, assume)


def runs_as_said(runtime: str, meter: Meter) -> bool:
    """Whether a meter runs files as ``runtime`` says, see ``parse_use``, as far as it says it.

    Of a device's benchmark program only the name of the runtime is known, not its version.
    """
    use = parse_use(runtime)
    words = (use.software or "").casefold().split()
    if isinstance(meter, Local | Compiler):
        software = meter.software.casefold().split()[: len(words)] == words
    else:
        software = words[:1] in ([], [meter.runtime])
    runs_on = "npu" if isinstance(meter, Compiler) else "cpu"
    delegate = use.delegate is None or _DELEGATES[use.delegate] == runs_on
    return software and delegate and use.threads in (None, meter.threads)


def parse_use(text: str, precision: str = "float32") -> Use:
    """From words with commas: "tflite 2.16, 4 threads, gpu". Raises UserError."""
    use = Use(precision=precision)
    for word in filter(None, (part.strip().casefold() for part in text.split(","))):
        if threads := re.fullmatch(r"([1-9]\d*) ?threads?", word):
            use = replace(use, threads=int(threads[1]))
        elif word in _DELEGATES:
            use = replace(use, delegate=word)
        elif use.software is None and not word[0].isdigit():
            use = replace(use, software=word)
        else:
            raise UserError(
                f"{word!r} is neither a number of threads, nor a delegate, nor a runtime",
                f"--runtime {text!r}",
                "such as 'tflite 2.16, 4 threads, gpu'",
            )
    return use


def for_use(profile: Profile, use: Use, assume: bool) -> tuple[Profile, str | None]:
    """The profile for that use, and a sentence on what was assumed where they differ.

    Raises UserError where they differ and nothing may be assumed.
    """
    differences = _differences(profile, use)
    if not differences:
        return profile, None
    told = " and ".join(differences)
    if profile.kind == "microcontroller" and use.precision != profile.precision:
        raise UserError(
            f"{profile.name!r} runs {profile.precision} networks, not {use.precision}",
            "--precision",
            "leave it out",
        )
    if not assume:
        source = profile.provenance.get("source")  # one calibrated is of a device of its own
        nearest = sorted(
            (
                other
                for other in load_profiles()
                if other.hardware.device == profile.hardware.device
                and CALIBRATED not in (other.provenance.get("source"), source)
                and (use.delegate or other.runtime.delegate == profile.runtime.delegate)
                and not _differences(other, use)
            ),
            key=lambda other: (other.hardware.cores != profile.hardware.cores, len(other.name)),
        )
        raise UserError(
            f"profile {profile.name!r} is of {told}",
            fix=(f"--device {nearest[0].name} is of that; " if nearest else "")
            + "--assume-runtime takes it all the same, with a wider bound",
        )
    factor = 1.0
    for each in differences.values():
        factor *= each
    bound = {confidence: each * factor for confidence, each in profile.bound.items()}
    return (
        replace(profile, bound=bound),
        f"the profile is of {told}: its bound is {factor:.2g} times as wide (--assume-runtime)",
    )


def _differences(profile: Profile, use: Use) -> dict[str, float]:
    """Each difference in words, and what it may cost as a factor."""
    measured, found = profile.runtime, {}
    if use.software is not None:
        ours, theirs = use.software.casefold().split(), measured.software.casefold().split()
        if theirs[: len(ours)] != ours:
            found[f"{measured.software}, not {use.software}"] = _OTHER_SOFTWARE
    delegate = measured.delegate or "cpu"
    if use.delegate is not None and _DELEGATES[use.delegate] != _DELEGATES.get(delegate):
        found[f"delegate {delegate}, not {use.delegate}"] = _OTHER_DELEGATE
    if use.threads is not None and measured.threads not in (None, use.threads):
        assert measured.threads is not None
        slower = measured.threads / use.threads
        plural = "s" * (measured.threads != 1)
        found[f"{measured.threads} thread{plural}, not {use.threads}"] = max(slower, _MORE_THREADS)
    if profile.precision != use.precision:
        cost = _FLOAT_FOR_INT8 if profile.precision == "int8" else 1.0
        found[f"{measured.precision} networks, not {use.precision}"] = cost
    return found
