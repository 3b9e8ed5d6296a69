"""Device profiles: what a layer costs on a device, and how far that can be trusted.

A profile is one JSON file (``device-profile/1``): a latency model that is a sum over layers, its
errors on networks that it was not fitted to, and where its data came from. Profiles ship in
``profiles/``; a user's own are found in the configuration folder, or given as a path.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path

from ofa.errors import UserError

__all__ = [
    "FEATURES",
    "MEASURED_HERE",
    "Hardware",
    "Limits",
    "Profile",
    "Runtime",
    "Valid",
    "get_profile",
    "load_profiles",
    "parse_profile",
]

#: What a layer is priced by (``layer-features/1``), see ``devices.cost.features``.
FEATURES = (
    "const", "n", "stem.macs", "stem.io", "conv.macs", "conv.in", "conv.out", "conv.w",
    "pw.macs", "pw.in", "pw.out", "pw.w", "dw.k3", "dw.k5", "dw.k7", "dw.in", "dw.out", "dw.s2",
    "fc.w", "mem.io", "pool.ops",
)  # fmt: skip

#: Provenance of a profile that was fitted to measurements on this machine.
MEASURED_HERE = "measured here"

_SHIPPED = Path(__file__).parent / "profiles"


@dataclass(frozen=True, slots=True)
class Hardware:
    """The device as it was measured. clock_ghz: of the fastest core used."""

    device: str
    soc: str
    cores: str
    core: str
    clock_ghz: float | None


@dataclass(frozen=True, slots=True)
class Runtime:
    """The software that was measured: a profile names a runtime, not only a device."""

    name: str
    version: str
    delegate: str | None
    threads: int | None
    precision: str
    batch: int

    def __str__(self) -> str:
        delegate = f", {self.delegate}" if self.delegate else ""
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        return f"{self.name} {self.version}{delegate}{threads}, {self.precision}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Memory of a microcontroller, in bytes."""

    sram_bytes: int | None
    flash_bytes: int | None
    note: str


@dataclass(frozen=True, slots=True)
class Valid:
    """Range of the measured networks: resolutions in pixels, latencies in ms."""

    resolution: tuple[float, float]
    ms: tuple[float, float]
    families: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """A device's latency model. ``coefficients``: ms a unit of each of ``FEATURES``.

    bound: confidence -> factor from a predicted latency to one that holds with that confidence.
    errors: way of leaving networks out -> n, mape, ... (percent; ratios are actual / predicted).
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    hardware: Hardware
    runtime: Runtime
    limits: Limits | None
    coefficients: Mapping[str, float]
    fit: str
    errors: Mapping[str, Mapping[str, float]]
    bound: Mapping[float, float]
    grade: Literal["A", "B", "C", "D"]
    valid: Valid
    provenance: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    mix_of: Mapping[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["phone", "board", "microcontroller", "this machine"]:
        """For grouping."""
        if self.provenance.get("source") == MEASURED_HERE:
            return "this machine"
        if self.limits is not None:
            return "microcontroller"
        boards = ("rpi", "stm32mp")
        return "board" if self.name.startswith(boards) else "phone"

    @property
    def typical_error(self) -> float:
        """MAPE in percent on networks left out of the fit: of the mobile ones where known."""
        for way in ("family_mobile", "leave_one_out", "scale", "group", "family", "kfold10"):
            if way in self.errors:
                return self.errors[way]["mape"]
        return self.errors["train"]["mape"] if "train" in self.errors else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """The JSON that ``parse_profile`` reads."""

        def plain(value: Any) -> dict[str, Any]:
            return {name: getattr(value, name) for name in value.__slots__}

        valid = self.valid
        return {
            "format": "device-profile/1",
            "name": self.name,
            "aliases": list(self.aliases),
            "title": self.title,
            "hardware": plain(self.hardware),
            "runtime": plain(self.runtime),
            "limits": plain(self.limits) if self.limits else None,
            "model": {
                "kind": "additive",
                "unit": "ms",
                "features": "layer-features/1",
                "coefficients": dict(self.coefficients),
                "unsupported": ["gconv"],
                "fit": self.fit,
                **({"mix_of": dict(self.mix_of)} if self.mix_of else {}),
            },
            "errors": {way: dict(figures) for way, figures in self.errors.items()},
            "bound": {f"{confidence:g}": factor for confidence, factor in self.bound.items()},
            "grade": self.grade,
            "valid": {
                "resolution": list(valid.resolution),
                "families": list(valid.families),
                "ms": list(valid.ms),
            },
            "provenance": dict(self.provenance),
            "notes": list(self.notes),
        }


def parse_profile(text: str, where: str) -> Profile:
    """The profile in a JSON text. Raises UserError, naming the file and the field."""
    try:
        data = json.loads(text)
        if data["format"] != "device-profile/1":
            raise UserError(f"format {data['format']!r}", where, "expected 'device-profile/1'")
        coefficients = data["model"]["coefficients"]
        for name in FEATURES:
            value = coefficients.get(name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise UserError(
                    f"coefficient {name!r} is {value!r}", where, "it must be a number of 0 or more"
                )
        hardware, valid = data["hardware"], data["valid"]
        return Profile(
            name=data["name"],
            aliases=tuple(data["aliases"]),
            title=data["title"],
            hardware=Hardware(**{key: hardware.get(key) for key in Hardware.__slots__}),
            runtime=Runtime(**{key: data["runtime"].get(key) for key in Runtime.__slots__}),
            limits=Limits(**{key: data["limits"].get(key) for key in Limits.__slots__})
            if data.get("limits")
            else None,
            coefficients={name: float(coefficients[name]) for name in FEATURES},
            fit=data["model"].get("fit", ""),
            mix_of=data["model"].get("mix_of", {}),
            errors=data["errors"],
            bound={float(c): float(f) for c, f in sorted(data["bound"].items())},
            grade=data["grade"],
            valid=Valid(tuple(valid["resolution"]), tuple(valid["ms"]), tuple(valid["families"])),
            provenance=data["provenance"],
            notes=tuple(data.get("notes", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"not a device profile ({detail})", where) from error


def _files() -> Iterator[Path]:
    yield from sorted((user_config_path("ofa-specializer") / "devices").glob("*.json"))
    yield from sorted(_SHIPPED.glob("*.json"))


@cache
def load_profiles() -> tuple[Profile, ...]:
    """All profiles, by name; a user's own hides a shipped one of the same name."""
    found: dict[str, Profile] = {}
    for file in _files():
        profile = parse_profile(file.read_text(), str(file))
        found.setdefault(profile.name, profile)
    return tuple(found[name] for name in sorted(found))


def get_profile(name: str) -> Profile:
    """The profile of that name, alias or path. Raises UserError with the nearest name."""
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return parse_profile(path.read_text(), str(path))
    wanted = name.casefold()
    names: dict[str, Profile] = {}
    for profile in load_profiles():
        for known in (profile.name, *profile.aliases):
            names[known.casefold()] = profile
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    count = len(load_profiles())
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"unknown device {name!r} (--device)", fix=f"{hint}`ofa-device list` shows all {count}"
    )
