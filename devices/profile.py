"""Device profiles: what a layer costs on a device, and how far that can be trusted.

A profile is one JSON file (``device-profile/1``): a latency model that is a sum over layers, its
errors on networks that it was not fitted to, and where its data came from. Profiles ship in
``profiles/``; a user's own are found in the configuration folder, or given as a path.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path

from devices.document import Document
from ofa.errors import UserError

__all__ = [
    "CALIBRATED",
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
    "shipped_names",
    "user_profiles",
]

#: What a layer is priced by (``layer-features/1``), see ``devices.cost.features``.
FEATURES = (
    "const", "n", "stem.macs", "stem.io", "conv.macs", "conv.in", "conv.out", "conv.w",
    "pw.macs", "pw.in", "pw.out", "pw.w", "dw.k3", "dw.k5", "dw.k7", "dw.in", "dw.out", "dw.s2",
    "fc.w", "mem.io", "pool.ops",
)  # fmt: skip

#: Provenance of a profile that was fitted to measurements on this machine.
MEASURED_HERE = "measured here"
#: The same of another device.
CALIBRATED = "calibrated"

#: Ways of leaving networks out (a key of ``Profile.errors``), the nearest to a user's case first.
#: A profile that is another one times a factor errs at least as its source does.
_LEFT_OUT = ("family_mobile", "leave_one_out", "scale", "of_source", "family", "group", "kfold10")

#: On the bounds of a calibrated profile for networks of another space than the measured one.
_OTHER_FAMILY = 1.05

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

    @property
    def software(self) -> str:
        """Name and version; some sources give a version that begins with the name."""
        told = self.version.casefold().startswith(self.name.casefold())
        return self.version if told else f"{self.name} {self.version}"

    def __str__(self) -> str:
        delegate = f", {self.delegate}" if self.delegate else ""
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        return f"{self.software}{delegate}{threads}, {self.precision}"


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

    That of ``const`` may be negative: of weights that every network of the space has, and that
    cost nothing.

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
        boards = ("Raspberry Pi", "STM32MP")
        return "board" if self.hardware.device.startswith(boards) else "phone"

    def of_space(self, space: str) -> Profile:
        """The profile for networks of a space; one calibrated on another has wider bounds there.

        By 5 %: with that, those from ten samples covered 97 % of the networks of a family that was
        not among them, where without they covered 85 % (float32) and 82 % (int8). A constant below
        0 is no longer taken: it is of weights that all networks of the other space have.
        """
        own = self.provenance.get("source") in (MEASURED_HERE, CALIBRATED)
        constant = self.coefficients["const"]
        if space in self.valid.families or (constant >= 0 and not own):
            return self
        wider = _OTHER_FAMILY if own else 1.0  # published profiles are of other families anyway
        return replace(
            self,
            coefficients={**self.coefficients, "const": max(constant, 0.0)},
            bound={confidence: factor * wider for confidence, factor in self.bound.items()},
        )

    @property
    def engine(self) -> str | None:
        """The build of TensorFlow Lite Micro whose arena int8 files take (``devices.memory``).

        None where no such thing runs: on phones and boards, and on NPUs, which plan their own.
        """
        if self.limits is None or self.runtime.delegate == "npu":
            return None
        helium = any(core in self.hardware.core for core in ("M55", "M85"))
        return "cortex-m55" if helium else "cortex-m"

    @property
    def precision(self) -> Literal["float32", "int8"]:
        """Of the files that it is of: a GPU runs float32 ones in float16."""
        return "int8" if self.runtime.precision.endswith("int8") else "float32"

    @property
    def typical_error(self) -> float:
        """MAPE in percent on networks left out of the fit: of the mobile ones where known."""
        known = (self.errors.get(way, {}) for way in _LEFT_OUT)
        return next(figures["mape"] for figures in known if "mape" in figures)

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
    """The profile in a JSON text. Raises UserError, naming the file (``where``) and the field."""
    doc = Document(text, where)
    doc.expect("format", "device-profile/1")
    doc.expect("model.kind", "additive")
    doc.expect("model.unit", "ms")
    doc.expect("model.features", "layer-features/1")
    coefficients = doc.numbers("model.coefficients", *FEATURES, signed=("const",))
    ways = doc.take("errors", dict)
    errors = {way: doc.numbers(f"errors.{way}", low=-math.inf, holes=True) for way in ways}
    if not any("mape" in errors.get(way, {}) for way in _LEFT_OUT):
        raise doc.error("errors", f"has none of {', '.join(_LEFT_OUT)} with a 'mape'")
    if "reference_slow_ms" in doc.take("provenance", dict):  # of a calibration: its pace
        low, _ = doc.span("provenance.reference_range_ms")
        pace = (doc.take(f"provenance.reference{p}_ms", float | int) for p in ("", "_slow"))
        if min(low, *pace) <= 0:
            raise doc.error("provenance", "has a 'reference' latency that is not above 0")
    bound = doc.numbers("bound")
    if not bound or not all(_is_confidence(key) for key in bound):
        raise doc.error("bound", 'must name confidences between 0 and 1, such as "0.9"')
    name = doc.take("name", str)
    if Path(name).name != name or name in ("", ".."):  # a fleet has a folder of that name
        raise doc.error("name", "must be a name, without '/'")
    return Profile(
        name=name,
        aliases=doc.texts("aliases"),
        title=doc.take("title", str),
        hardware=Hardware(
            device=doc.take("hardware.device", str),
            soc=doc.take("hardware.soc", str),
            cores=doc.take("hardware.cores", str),
            core=doc.take("hardware.core", str),
            clock_ghz=doc.take("hardware.clock_ghz", float | int | None, optional=True),
        ),
        runtime=Runtime(
            name=doc.take("runtime.name", str),
            version=doc.take("runtime.version", str),
            delegate=doc.take("runtime.delegate", str | None),
            threads=doc.take("runtime.threads", int | None),
            precision=doc.one_of("runtime.precision", ("float32", "float16", "int8", "uint8")),
            batch=doc.take("runtime.batch", int),
        ),
        limits=None
        if doc.take("limits", dict | None) is None
        else Limits(
            sram_bytes=doc.take("limits.sram_bytes", int | None),
            flash_bytes=doc.take("limits.flash_bytes", int | None),
            note=doc.take("limits.note", str),
        ),
        coefficients={name: coefficients[name] for name in FEATURES},
        fit=doc.take("model.fit", str),
        errors=errors,
        bound={float(key): bound[key] for key in sorted(bound, key=float)},
        grade=doc.one_of("grade", ("A", "B", "C", "D")),
        valid=Valid(
            resolution=doc.span("valid.resolution"),
            ms=doc.span("valid.ms"),
            families=doc.texts("valid.families"),
        ),
        provenance=doc.take("provenance", dict),
        notes=doc.texts("notes"),
        mix_of=doc.numbers("model.mix_of", optional=True),
    )


def _is_confidence(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def user_profiles() -> Path:
    """The folder of the user's own profiles; it may not exist."""
    return user_config_path("ofa-specializer") / "devices"


@cache
def shipped_names() -> frozenset[str]:
    """Names and aliases of the shipped profiles, in lower case."""
    shipped = map(_read, _SHIPPED.glob("*.json"))
    return frozenset(name.casefold() for one in shipped for name in (one.name, *one.aliases))


def _files() -> Iterator[Path]:
    for folder in (user_profiles(), _SHIPPED):
        yield from sorted(folder.glob("*.json"), key=lambda file: file.stem)


def _read(file: Path) -> Profile:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", str(file)) from error
    return parse_profile(text, str(file))


@cache
def load_profiles() -> tuple[Profile, ...]:
    """All profiles: a user's own, which hide shipped ones of the same name, then the shipped."""
    found: dict[str, Profile] = {}
    for file in _files():
        profile = _read(file)
        found.setdefault(profile.name, profile)
    return tuple(found.values())


def get_profile(name: str) -> Profile:
    """The profile of that name, alias or path. Raises UserError with the nearest name."""
    if name.endswith(".json"):
        return _read(Path(name))
    profiles = load_profiles()
    known: dict[str, Profile] = {}
    for profile in profiles:  # a user's own come first
        known.setdefault(profile.name.casefold(), profile)
    for profile in profiles:
        for alias in profile.aliases:
            known.setdefault(alias.casefold(), profile)
    wanted = name.casefold()
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"unknown device {name!r} (--device)",
        fix=f"{hint}`ofa-device list` shows all {len(profiles)}",
    )
