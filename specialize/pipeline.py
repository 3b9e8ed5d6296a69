"""``specialize()``: the main job, from a checkpoint and a device to verified files and a report."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.backends.litert import Litert
from devices.backends.ort import OnnxRuntime
from devices.backends.vela import ACCELERATORS
from devices.cost import Latency, bound_factor, predict, warnings_for
from devices.measure import Measurement, measure
from devices.memory import sram_bytes
from devices.profile import Profile, get_profile, load_profiles
from devices.reach import HOSTS, Compiler, Local, Meter, reach, reachable, uncompiled
from devices.runtime import profile_for, runs_as_said
from ofa.checkpoint import Checkpoint, load_checkpoint
from ofa.errors import UserError
from ofa.images import Images
from ofa.layers import lower, macs, parameters
from ofa.space import Arch
from ofa.spaces import get_space
from ofa.table import Stacked, Table
from ofa.weights import Array
from ofa.wilson import wilson
from specialize import report as r
from specialize.accuracy import AccuracyModel, fit, percent, rank
from specialize.bench import Bench
from specialize.calibration import at_present_pace, profile_here
from specialize.closed_loop import (
    NEAR_LEAST,
    TIGHTENINGS,
    keep_compiled,
    keep_fitting,
    keep_measured,
    measured_last,
    shares,
)
from specialize.convert import converted
from specialize.export.carray import ETHOS_U, c_sources, operators_of
from specialize.export.onnx import onnx_model
from specialize.export.quantize import check_quantizable, qdq_model
from specialize.export.tflite import tflite_model
from specialize.export.verify import verify
from specialize.finetune import check_trainable, tune
from specialize.front import check_drawable, front_csv, front_png
from specialize.output import check_folder, check_text, write
from specialize.page import collect, render
from specialize.pose import (
    beyond_memory,
    check_reachable,
    cost_tables,
    demanding,
    memory_of,
    pose,
)
from specialize.problem import (
    REPORTED,
    SLACK,
    Limit,
    Objective,
    Problem,
    Quantity,
    budgets_of,
)
from specialize.refine import evaluate_more
from specialize.samples import samples, tests_are_held_out
from specialize.score import Cut, Int8Scorer, Scorer, percent_right
from specialize.search import SearchResult, exact, get_strategy

__all__ = ["Result", "default_checkpoint", "specialize"]

#: All candidates are scored on the first held-out images, the best few on all of them: on as many
#: as this many MACs pay for, which is 80 at 150 MMACs, and no fewer.
_FIRST_LOOK, _FIRST_LOOK_MACS = 80, 12e9
_FINALISTS = 3
_JUDGED_TWICE = (
    "the supernet had too few images to set some apart: its test images are those that the choice "
    "was made by, and their accuracy is too high"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What ``specialize`` made."""

    report: r.Report
    output: Path

    @property
    def tflite(self) -> Path:
        """The TFLite file."""
        return self.output / "model.tflite"

    @property
    def onnx(self) -> Path:
        """The ONNX file."""
        return self.output / "model.onnx"


def specialize(
    device: str,
    budget: str | Sequence[str] = (),
    *,
    sram: str | None = None,
    flash: str | None = None,
    minimize: Quantity | None = None,
    min_accuracy: float | None = None,
    tradeoff: float | None = None,
    strategy: str = "evolution",
    evaluations: int = 0,
    checkpoint: str | Path = "",
    space: str = "",
    output: str | Path | None = None,
    confidence: float = 0.9,
    candidates: int = 10,
    images: str | Path | None = None,
    finetune: str = "",
    pareto: bool = False,
    serials: Sequence[str] = (),
    ssh: str | None = None,
    benchmark: Path | None = None,
    precision: str = "",
    runtime: str = "",
    assume_runtime: bool = False,
    threads: int | None = None,
    seed: int = 0,
    force: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Find, cut, verify and write the subnet that is most accurate on ``device`` in ``budget``.

    device: a profile's name, alias or file, or ``host``, ``host-onnxruntime``. budget: one or
    several texts with units ("20ms", "300MMACs", "3Mparams"). sram, flash: for what ``Memory`` of
    the report says ("256kB", "2MiB"). minimize, min_accuracy, tradeoff: see
    ``Objective``; without them the highest accuracy within the budgets is best. strategy: a name of
    ``STRATEGIES``. evaluations: subnets near the budget that are scored on images before the choice
    and refine the accuracy model. output: by default a folder of the working directory named after
    what was asked. images: the user's own, to recalibrate and choose with. finetune: for how long
    the chosen subnet is trained alone on ``images`` ("5m", "90s"), see ``tune``; it needs torch.
    space: of a checkpoint that is a .pth file of the research code, which needs images, see
    ``converted``. pareto: write the whole front too, as front.csv and front.png. serials, ssh,
    benchmark: where the device is connected, see ``devices.reach``; then candidates are measured
    there, those that miss the budget are left out, and the winner is measured once more, up to
    three times where it misses, and then refused. precision:
    ``float32`` or ``int8``, of the files; by default what the device's profile is of. runtime: what
    will run the file there ("tflite 2.16, 4 threads"); where the profile is of another one it is
    refused, or with assume_runtime its bound is widened, see ``devices.runtime``.
    tell: called with a line of text after each step. Same seed, same architecture and, on one kind
    of processor, the same files; not so with finetune, whose time is the clock's.
    Raises UserError for what the caller can mend; then nothing is written.
    """
    check_precision(precision)
    clock = _Clock()
    seconds = check_trainable(finetune, images) if finetune else 0.0
    objective = Objective(minimize, min_accuracy, tradeoff)
    budgets = budgets_of(budget, sram, flash)
    if not budgets and objective == Objective():
        raise UserError("nothing limits the network", fix="add --budget 20ms")
    search = get_strategy(strategy)
    words = _words(budget, sram, flash, objective)
    checkpoint = checkpoint or default_checkpoint(device, tell)
    target = Path(output) if output is not None else _default_output(device, words)
    asked: list[tuple[str, ...]] = [*words]
    asked += [("--space", space)] if space else []
    asked += [("--evaluations", str(evaluations))] if evaluations else []
    asked += [("--serial", serial) for serial in serials]
    asked += [("--ssh", ssh)] if ssh is not None else []
    asked += [("--benchmark", str(benchmark))] if benchmark is not None else []
    asked += [("--precision", precision)] if precision else []
    asked += [("--runtime", runtime)] if runtime else []
    asked += [("--assume-runtime",)] if assume_runtime else []
    asked += [("--finetune", finetune)] if finetune else []
    command = _command(device, asked, strategy, checkpoint, confidence, candidates, images, seed)
    check_text(command, str(target))
    if pareto:
        check_drawable()
    load_profiles()  # the page shows them all: one of the user's that is broken is told of now
    meter: Meter | None = None
    if reachable(device) or serials or ssh is not None or benchmark is not None:
        meter = reach(device, serials=serials, ssh=ssh, benchmark=benchmark, tell=tell)
    profile, assumed = None, None
    if device not in HOSTS:
        profile, assumed = profile_for(device, runtime, assume_runtime, meter, precision)
        if meter is not None and not runs_as_said(runtime, meter):
            if not isinstance(meter, Local | Compiler):
                raise UserError(
                    f"it is measured with {meter.runtime}, {meter.threads} threads, on its CPU",
                    f"--runtime {runtime!r}",
                    "leave out --benchmark: then the profile alone tells",
                )
            meter = None  # the file will not run as it would be measured here
        precision = precision or profile.precision
        budgets += memory_of(profile, budgets, tell)
    elif runtime:
        raise UserError("this machine is measured, with one thread", f"--runtime {runtime!r}")
    precision = precision or "float32"
    check_folder(target, command, force)
    with clock("load"):
        if str(checkpoint).endswith(".pth"):
            if precision == "int8" and space:  # before tens of minutes
                wanted = get_space(space)
                check_quantizable(lower(wanted, wanted.largest()))
            checkpoint = converted(Path(checkpoint), space, images, threads, tell)
            images = images if finetune else None
        elif space:
            raise UserError(
                "a checkpoint says what its space is", f"--space {space}", "leave it out"
            )
        source = load_checkpoint(checkpoint)
        if precision == "int8":
            check_quantizable(lower(source.space, source.space.largest()))
        recalibration, held_out, train = samples(source, images, bool(finetune), tell)
        kind = Int8Scorer if precision == "int8" else Scorer
        scorer = kind(source, recalibration, threads or os.cpu_count() or 1)
    bench = Bench(device, meter, source, precision) if meter is not None else None
    if profile is None:
        assert bench is not None
        tell("measuring a spread of subnets on this machine")
        with clock("calibrate"):
            profile = profile_here(bench)
    elif bench is not None:
        with clock("calibrate"):
            profile = at_present_pace(profile, bench, tell)
    profile = profile.of_space(source.space.name)
    bound_factor(profile, confidence)  # refused before anything is trained or searched

    costs = cost_tables(
        source.space, profile, source.labels, precision, isinstance(meter, Compiler)
    )

    def problem_of(accuracy: Table, objective: Objective = objective) -> Problem:
        posed = pose(source.space, accuracy, costs, profile, budgets, objective, confidence)
        return posed if bench is None else posed.within_reach("latency", NEAR_LEAST)

    def arenas(archs: Sequence[Arch]) -> list[int]:
        """Bytes of memory while each runs, exactly."""
        if bench is not None and isinstance(bench.meter, Compiler):
            return [one.sram for one in bench.compile(archs)]
        npu = ACCELERATORS.get(profile.hardware.device)
        sizes = [sram_bytes(lower(source.space, arch), precision, profile.engine) for arch in archs]
        return [int(npu.sram(size)) for size in sizes] if npu is not None else sizes

    evaluated = source.evaluated
    with clock("accuracy model"):
        model = fit(source.space, evaluated)
        ranking = rank(source.space, evaluated, seed)
    if min_accuracy is not None:
        check_reachable(problem_of(model.table, Objective()), min_accuracy)
    if evaluations:
        with clock("evaluate"):
            evaluated = evaluate_more(source, scorer, held_out, problem_of, evaluations, seed, tell)
            model = fit(source.space, evaluated)
        if min_accuracy is not None:
            check_reachable(problem_of(model.table, Objective()), min_accuracy)
    problem = problem_of(model.table)

    def look(problem: Problem, seed: int) -> SearchResult:
        """What the strategy finds; the default one starts from the optimum, and keeps it."""
        with clock("search"):
            proof = exact.search(problem, seed=seed, count=candidates)
            if strategy == "exact":
                return proof
            starts = proof.genotypes if strategy == "evolution" else None
            try:
                found = search(problem, seed=seed, count=candidates, starts=starts)
            except UserError as error:
                raise UserError(
                    f"strategy {strategy!r} found nothing that keeps the budgets, though there is",
                    "--strategy",
                    "leave it away, or take exact",
                ) from error
        tell(f"{found.evaluations} architectures searched in {found.seconds:.2f} s")
        return replace(found, bound=proof.bound)

    def find(problem: Problem, seed: int) -> SearchResult:
        """The same, of what packs into the memory."""
        return keep_fitting(problem, look(problem, seed), arenas, look, seed, tell)

    def taken(cut: Cut) -> dict[Quantity, float]:
        """What the file takes: as the compiler says; without one, its memory as it is packed."""
        if not isinstance(meter, Compiler):
            (arena,) = arenas([cut.arch])
            return {"sram": arena}
        content = (cut.layers, cut.folded, source.labels, source.preprocessing)
        name = _name(source, profile)  # of the file that will be written, to the byte
        found = meter.vela.compile(tflite_model(*content, name, cut.quantized))
        return {"latency": found.ms, "sram": found.sram, "flash": found.flash}

    bound, short = np.nan, None
    loosen = True  # until a compiler's answer for the real weights has tightened the limit
    for attempt in range(TIGHTENINGS):
        try:
            found = find(problem, seed + attempt)
        except UserError as error:
            raise short or error from None
        if attempt == 0:  # what is proven is of what was asked, not of a tightened limit
            bound = found.bound
        if bench is not None:
            with clock("measure candidates"):
                found = keep_measured(bench, profile, problem, found, find, seed, tell, loosen)
            bound = max(bound, found.bound)  # unless measuring loosened it
        with clock("score"):
            archs = [source.space.decode(row) for row in found.genotypes]
            estimates = percent(model.table.price(found.genotypes))
            scored = _score(scorer, archs, estimates, held_out, objective, costs, taken, tell)
        if isinstance(meter, Compiler):
            kept, problem = keep_compiled(
                meter, problem, [one.cut.arch for one in scored], [one.taken for one in scored],
                attempt + 1 == TIGHTENINGS, tell,
            )  # fmt: skip
            scored = [scored[index] for index in kept]
            if not scored:
                loosen = False
                continue
        winner = scored[0]
        missing = (min_accuracy or 0) - winner.held_out.value
        if missing <= 0:
            break
        tell(f"the best of them is {missing:.2f} points short of {min_accuracy:g} %")
        problem = demanding(problem, missing)
        short = UserError(
            f"no subnet that was scored reaches {min_accuracy:g} %; "
            f"the nearest: {winner.held_out.value:.2f}",
            "--min-accuracy",
            f"try {winner.held_out.value - 0.05:.1f}",
        )
        if attempt + 1 == TIGHTENINGS or not problem.possible:
            raise short
    tuned = None
    if train is not None:
        with clock("fine-tune"):
            cut, tuned = tune(
                scorer, winner.cut, train, held_out, seconds,
                lambda cut: all(share <= 1 for share in shares(problem, taken(cut)).values()),
                seed, tell,
            )  # fmt: skip
            winner = replace(winner, cut=cut, held_out=tuned.after if tuned.kept else tuned.before)
    with clock("test"):
        scorer.pixels_of.cache_clear()  # from here on it is the test images only
        test = source.test()
        logits = scorer.logits(winner.cut, test)
        value = _share(logits, test)
        plain_logits, plain = logits, None
        if isinstance(scorer, Int8Scorer):
            plain_logits = scorer.float_logits(winner.cut, test)
            plain = _share(plain_logits, test)
    with clock("export"):
        content = (winner.cut.layers, winner.cut.folded, source.labels, source.preprocessing)
        name = _name(source, profile)
        onnx = onnx_model(*content, name)
        if isinstance(scorer, Int8Scorer):
            onnx = qdq_model(onnx, scorer.representative(winner.cut.arch))
        files = {
            "model.tflite": tflite_model(*content, name, winner.cut.quantized),
            "model.onnx": onnx,
            "labels.txt": ("\n".join(source.labels) + "\n").encode(),
        }
        # For an NPU only as its compiler makes them: code for the processor would need more memory.
        compiled = isinstance(meter, Compiler) or not uncompiled(profile)
        if profile.kind == "microcontroller" and precision == "int8" and compiled:
            files |= _for_firmware(files["model.tflite"], name, source, winner.cut, profile, meter)
    with clock("verify"):
        pixels = scorer.pixels_of(test, winner.cut.arch.resolution)
        verified = verify(
            files["model.tflite"], files["model.onnx"], pixels, plain_logits, source.labels,
            source.preprocessing, precision=precision, threads=scorer.threads,
        )  # fmt: skip
    with clock("time here"):
        at_home = [
            _measured(measure(Litert(threads=1), files["model.tflite"], turns=10)),
            _measured(measure(OnnxRuntime(threads=1), files["model.onnx"], turns=10)),
        ]

    layers = winner.cut.layers
    if isinstance(meter, Compiler):
        needs = meter.vela.compile(files["model.tflite"])
        memory = r.Memory(sram_bytes=needs.sram, flash_bytes=needs.flash)
    else:
        (arena,) = arenas([winner.cut.arch])
        memory = r.Memory(sram_bytes=arena, flash_bytes=len(files["model.tflite"]))
    latency = predict(profile, layers, confidence)
    on_device, repeated = None, None
    if bench is not None:
        with clock("measure winner"):
            own = files[f"model{bench.meter.suffix}"]
            last, repeated = measured_last(bench, own, budgets, tell)
            on_device = _measured(last)
        if isinstance(bench.meter, Local):
            at_home[bench.meter.suffix == ".onnx"] = on_device
    document = r.Report(
        schema_=r.SCHEMA,
        command=command,
        seed=seed,
        versions=_versions(),
        checkpoint=r.CheckpointName(name=source.name, sha256=source.sha256),
        device=r.DeviceName(
            name=profile.name,
            title=profile.title,
            runtime=str(profile.runtime),
            grade=profile.grade,
        ),
        objective=str(objective),
        budgets=[
            _kept(limit, source, winner, latency, on_device, memory)
            for limit in problem.limits
            if limit.budget in budgets
        ],
        architecture=str(winner.cut.arch),
        resolution=winner.cut.arch.resolution,
        macs=macs(layers),
        parameters=parameters(layers),
        accuracy=r.Accuracy(
            estimated=winner.estimated,
            held_out=winner.held_out,
            test=value,
            test_float32=plain,
        ),
        finetuned=tuned,
        latency_ms=r.Latency(
            point=latency.point, bound=latency.bound, confidence=confidence, measured=on_device
        ),
        host_latency_ms=at_home,
        memory=memory,
        search=r.Search(
            strategy=strategy,
            evaluations=found.evaluations,
            seconds=found.seconds,
            scored=len(evaluated.accuracy) - len(source.evaluated.accuracy),
            accuracy_model=r.Ranking(
                overall=ranking.overall, within_bands=ranking.within_bands,
                bands=ranking.bands, n=ranking.n,
            ),
            certificate=_certificate(model, problem, objective, bound, winner),
            candidates=[
                r.Candidate(
                    architecture=str(one.cut.arch),
                    estimated=one.estimated,
                    held_out=one.held_out,
                    latency_ms=one.taken.get("latency")
                    or predict(profile, one.cut.layers, confidence).point,
                )
                for one in scored
            ],
        ),
        preprocessing=source.preprocessing.as_dict(),
        labels=list(source.labels),
        verified=r.Agreement(
            images=verified.images,
            largest_difference=verified.largest_difference,
            agreeing=verified.agreeing,
        ),
        files=[_file(path, data, precision) for path, data in files.items()],
        timings=clock.seconds(),
        warnings=[
            *filter(None, [assumed, repeated]),
            *([] if meter is not None else uncompiled(profile)),
            *beyond_memory(profile, budgets),
            *([_JUDGED_TWICE] if tests_are_held_out(source) else []),
            *warnings_for(profile, layers, latency.point),
        ],
    )  # fmt: skip
    with clock("page"):
        shown = collect(document, source.space, model.table, profile, objective, found.trace)
        # Not among the report's files: a page that shows times is not the same byte for byte.
        extras = {"report.html": render(shown).encode()}
        if pareto or find_spec("matplotlib"):
            extras["front.png"] = front_png(shown)
        if pareto:
            extras["front.csv"] = front_csv(shown, source.space)
    document = document.model_copy(update={"timings": clock.seconds()})
    write(target, {**files, **extras, "report.json": document.to_json().encode()})
    return Result(document, target)


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """A candidate after a look at real images. taken: what is known of its file."""

    cut: Cut
    estimated: float
    held_out: r.Share
    taken: Mapping[Quantity, float]


def _score(
    scorer: Scorer,
    archs: Sequence[Arch],
    estimates: NDArray[np.float64],
    held_out: Images,
    objective: Objective,
    costs: Mapping[Quantity, Table | Stacked],
    taken: Callable[[Cut], Mapping[Quantity, float]],
    tell: Callable[[str], None],
) -> list[_Scored]:
    """Candidates by the objective on held-out images, best first; of equals the better estimate.

    All are scored on a first few images, the best of them on all.
    """
    held_out = held_out.interleaved()
    largest = max(macs(lower(scorer.checkpoint.space, arch)) for arch in archs)
    count = max(_FIRST_LOOK, int(_FIRST_LOOK_MACS / largest))
    first = held_out.take(range(min(count, len(held_out))))
    scored = []
    by_resolution = sorted(zip(archs, estimates, strict=True), key=lambda pair: pair[0].resolution)
    looks = scorer.score([arch for arch, _ in by_resolution], first)
    for done, ((_, estimate), (cut, value)) in enumerate(
        zip(by_resolution, looks, strict=True), start=1
    ):
        share = r.Share(value=value, n=len(first))
        scored.append(_Scored(cut, float(estimate), share, taken(cut)))
        tell(f"candidate {done} of {len(archs)}: {share.value:.1f} % on {share.n} held-out images")

    def merit(one: _Scored) -> tuple[float, float]:
        genotype = scorer.checkpoint.space.encode([one.cut.arch])
        prices = {name: float(table.price(genotype)[0]) for name, table in costs.items()}
        prices |= one.taken
        return (-objective.merit(one.held_out.value, prices), -one.estimated)

    scored.sort(key=merit)
    rest = held_out.take(range(len(first), len(held_out)))
    if not len(rest):
        return scored
    finalists = []
    best = sorted(scored[:_FINALISTS], key=lambda one: one.cut.arch.resolution)
    accuracies = scorer.accuracies([one.cut for one in best], rest)
    for one, accuracy in zip(best, accuracies, strict=True):
        right = one.held_out.value * len(first) + accuracy * len(rest)
        share = r.Share(value=right / len(held_out), n=len(held_out))
        finalists.append(replace(one, held_out=share))
    return sorted(finalists, key=merit) + scored[_FINALISTS:]


def _certificate(
    model: AccuracyModel,
    problem: Problem,
    objective: Objective,
    bound: float,
    winner: _Scored,
) -> r.Certificate:
    """How far the chosen architecture is from the best that any can be under the tables."""
    genotype = problem.space.encode([winner.cut.arch])
    chosen = float(problem.value.price(genotype)[0])
    best, unit = max(bound, chosen), "%"
    if np.isclose(best, chosen, rtol=1e-9, atol=0):  # the same, summed in another order
        best = chosen
    if objective.minimize is not None:
        unit, size = REPORTED[objective.minimize]
        best, chosen = -best / size, -chosen / size
    elif objective.tradeoff is not None:
        unit = "% + weight * log(ms)"
    else:
        best, chosen = (float(percent(value)) for value in (best, chosen))
    low, high = (float(end[0]) for end in model.interval(genotype))
    return r.Certificate(
        unit=unit, best=best, chosen=chosen, gap=abs(best - chosen), low=low, high=high
    )


def _kept(
    limit: Limit,
    source: Checkpoint,
    winner: _Scored,
    latency: Latency,
    measured: r.Measured | None,
    memory: r.Memory,
) -> r.BudgetKept:
    unit, size = REPORTED[limit.budget.quantity]
    most = limit.budget.limit
    if limit.budget.quantity in ("flash", "sram"):
        size_of = {"flash": memory.flash_bytes, "sram": memory.sram_bytes}
        value = bound = float(size_of[limit.budget.quantity])
        confidence = None
    elif limit.budget.quantity != "latency":
        exact = float(limit.table.price(source.space.encode([winner.cut.arch]))[0])
        value, bound, confidence = exact, exact, None
    elif measured is not None:
        value, bound, confidence = measured.p90, measured.p90, None
    else:
        value, bound, confidence = latency.point, latency.bound, latency.confidence
    return r.BudgetKept(
        quantity=limit.budget.quantity, limit=most / size, unit=unit, value=value / size,
        bound=bound / size, confidence=confidence, kept=bound <= most * (1 + SLACK),
    )  # fmt: skip


def check_precision(precision: str) -> None:
    """Raise UserError where ``precision``, of the files, is none."""
    if precision not in ("", "float32", "int8"):
        raise UserError(f"unknown precision {precision!r} (--precision)", fix="float32 or int8")


def default_checkpoint(device: str, tell: Callable[[str], None] = lambda _: None) -> str:
    """The shipped supernet for a device's class: small networks for microcontrollers."""
    name, devices = "lite-imagenette", "phones and larger"
    if device not in HOSTS and get_profile(device).kind == "microcontroller":
        name, devices = "mcu-cifar10", "microcontrollers"
    tell(f"{name}, the supernet for {devices} (--checkpoint takes another)")
    return name


def _name(source: Checkpoint, profile: Profile) -> str:
    """Of a network, inside its file."""
    return f"{source.name} for {profile.name}"


def _for_firmware(
    model: bytes, name: str, source: Checkpoint, cut: Cut, profile: Profile, meter: Meter | None
) -> dict[str, bytes]:
    """The network as sources for TensorFlow Lite Micro; for an Ethos-U compiled, where Vela is."""
    assert cut.quantized is not None
    files: dict[str, bytes] = {}
    file, operators = "model.tflite", operators_of(cut.layers)
    if isinstance(meter, Compiler):
        arena = meter.vela.compile(model).arena
        file, model, operators = "model_vela.tflite", meter.vela.compiled(model), ETHOS_U
        about = "What Vela plans, and 16 KiB for the interpreter: not checked on a device."
        files[file] = model
    else:
        assert profile.engine is not None
        arena = sram_bytes(cut.layers, "int8", profile.engine)
        about = "TensorFlow Lite Micro with CMSIS-NN on a 32-bit processor, from the layers."
    return files | c_sources(
        name, file, model, cut.layers, cut.quantized, source.labels, source.preprocessing,
        operators, arena, about,
    )  # fmt: skip


def _words(
    budget: str | Sequence[str], sram: str | None, flash: str | None, objective: Objective
) -> list[tuple[str, str]]:
    """What is asked of the network, as options and their values."""
    texts = [budget] if isinstance(budget, str) else budget
    words = [("--budget", text) for text in texts]
    words += [("--sram", sram)] if sram is not None else []
    words += [("--flash", flash)] if flash is not None else []
    if objective.minimize is not None:
        words.append(("--minimize", objective.minimize))
        words.append(("--min-accuracy", f"{objective.min_accuracy:g}"))
    if objective.tradeoff is not None:
        words.append(("--tradeoff", f"{objective.tradeoff:g}"))
    return words


def _default_output(device: str, words: Sequence[tuple[str, str]]) -> Path:
    return Path("-".join([Path(device).stem, *(text.replace(" ", "") for _, text in words)]))


def _command(
    device: str,
    words: Sequence[tuple[str, ...]],
    strategy: str,
    checkpoint: str | Path,
    confidence: float,
    candidates: int,
    images: str | Path | None,
    seed: int,
) -> str:
    asked = ["ofa-specialize", "--device", device, *(word for option in words for word in option)]
    asked += ["--strategy", strategy, "--checkpoint", str(checkpoint)]
    asked += ["--confidence", f"{confidence:g}", "--candidates", str(candidates)]
    asked += ["--seed", str(seed)]
    asked += ["--images", str(images)] if images is not None else []
    return shlex.join(asked)


def _file(path: str, data: bytes, precision: str) -> r.File:
    kind = path.rsplit(".", 1)[1]
    return r.File(
        path=path,
        format=kind,
        precision=precision if kind in ("tflite", "onnx") else None,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _share(logits: Array, images: Images) -> r.ShareWithInterval:
    value = percent_right(logits, images.labels)
    low, high = wilson(value, len(images))
    return r.ShareWithInterval(value=value, n=len(images), low=low, high=high)


def _measured(m: Measurement) -> r.Measured:
    return r.Measured(
        median=m.median_ms, p90=m.p90_ms, runs=m.runs, counted=m.counted, runtime=m.runtime
    )


def _versions() -> dict[str, str]:
    names = ("ofa-specializer", "numpy", "onnx", "onnxruntime")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "tflite": f"{Litert().name} {Litert().version}",
    }


class _Clock:
    """Seconds of each step, by name."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._taken: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._taken[step] = self._taken.get(step, 0.0) + time.perf_counter() - began

    def seconds(self) -> dict[str, float]:
        total = time.perf_counter() - self._began
        return {step: round(s, 3) for step, s in {**self._taken, "total": total}.items()}
