"""``train_supernet()``: from images to a checkpoint folder, one readable function."""

from __future__ import annotations

import csv
import hashlib
import itertools
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ofa import ranks, train
from ofa.checkpoint import (
    FILES,
    Checkpoint,
    Evaluated,
    largest_side,
    load_checkpoint,
    write_checkpoint,
)
from ofa.console import stderr
from ofa.data import LABELS, Splits, named_data, splits_of
from ofa.errors import UserError
from ofa.evaluate import Evaluator, recalibration_part
from ofa.images import Images, open_images, split, tell_skipped, uneven, write_zip
from ofa.layers import lower, macs
from ofa.machine import check_writable, processor_name
from ofa.preprocessing import IMAGENET, LITE0, Preprocessing
from ofa.pretrained import PRETRAINED, moved_back
from ofa.recipe import Recipe, get_recipe
from ofa.reference import read_reference
from ofa.sampling import informative, spread
from ofa.space import Arch, Space
from ofa.spaces import get_space
from ofa.supernet import initial
from ofa.teacher import Teacher, taught
from ofa.weights import Array, shapes, sort_channels
from ofa.wilson import wilson

__all__ = ["Options", "Teller", "average", "convert", "evaluate_more", "train_supernet"]

#: Held-out images, and test images, that go into the checkpoint: so many, within so many bytes.
_SHIPPED, _SHIPPED_BYTES = 2000, 5_200_000
#: But at least so many, however large.
_SHIPPED_AT_LEAST = 200
_HELD_OUT = 1500
_ANCHORS = 4  # subnets that tell how two sets of images differ
#: What a card keeps of the run that it continues.
_HISTORY = (
    "init", "teacher", "recipe", "seed", "steps", "epochs", "hours", "machine", "versions",
    "commit",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What ``ofa-train`` was asked; see its help. space, recipe: a name, or one of your own.

    Without a name the space is that of ``init`` where it is a checkpoint, else ``lite``.
    """

    data: str
    output: Path
    test: Path | None = None
    space: str | Space = ""
    init: str = "efficientnet-lite0"
    teacher: str = ""
    recipe: str | Recipe = ""
    hours: float | None = None
    epochs: float | None = None
    arch: str = ""
    subnets: int | None = None
    held_out: int = _HELD_OUT
    threads: int = 2
    seed: int = 0
    resume: bool = False
    quiet: bool = False


def train_supernet(options: Options) -> Path:
    """Train, evaluate and write the checkpoint folder ``options.output``. Raises UserError.

    Started by ``torchrun`` it joins the other processes; the first of them writes the folder.
    """
    with ranks.group():
        return _train_supernet(options)


def _train_supernet(options: Options) -> Path:
    for name, value in (("--hours", options.hours), ("--epochs", options.epochs)):
        if value is not None and not value < 1e6:
            raise UserError(f"{value} is no time to train", name, "give a number, such as 2")
    torch.set_num_threads(options.threads)
    say = Teller(options.quiet or ranks.rank() > 0)
    folder = options.output / "training"
    ranks.from_first(lambda: _check_output(options.output, folder, options.resume))

    source = Path(options.data)
    if options.data in ("imagenette", "cifar10") and not source.exists():
        cache = Path.home() / ".cache" / "ofa-specializer"
        if ranks.local() == 0:  # one download a machine
            named_data(options.data, cache)
        ranks.gather(None)
        source = named_data(options.data, cache)
    splits = splits_of(source, options.test, options.held_out, options.seed)
    _say_splits(splits, say)

    space, tensors, teacher, recipe, preprocessing, given = _start(options, splits)
    only = Arch.parse(options.arch) if options.arch else None
    with _occupied(options, folder):
        lessons = None
        if recipe.teacher == "checkpoint":
            given["teacher"], lessons = ranks.from_first(
                lambda: _lessons(options, splits, folder, say)
            )
        device = f"cuda:{ranks.local()}" if torch.cuda.is_available() else "cpu"
        run = train.Run(
            space, recipe, splits, tensors, teacher, folder,
            seed=options.seed, only=only, device=device, preprocessing=preprocessing,
            taught=lessons, origin=given,
        )  # fmt: skip
        if recipe.bf16 and not run.bf16:
            say("this processor does not multiply bfloat16: float32 instead")
        if options.resume:
            run.resume()
            say(f"resumed at step {run.step} of {run.steps}")
            steps = run.steps
        elif options.epochs is not None:
            steps = max(1, round(options.epochs * run.loader.steps_per_epoch))
        else:
            hours = recipe.hours if options.hours is None else options.hours
            per_step = ranks.gather(run.seconds_per_step())[0]
            steps = max(1, round(hours * 3600 / per_step))
        with say.training(recipe) as tell:
            run.train(steps, tell)

        rng = np.random.default_rng(options.seed)
        archs = [only] if only else spread(space, options.subnets or recipe.subnets, rng)
        card = _card(options, run, splits, recipe, given)
        return _hand_over(
            options.output, space, splits, run.weights, archs, card, preprocessing, say
        )


@contextmanager
def _occupied(options: Options, folder: Path) -> Iterator[None]:
    """Keep every other process out of the folder of a run: two in it would spoil each other's."""
    lock = FileLock(folder / "lock")

    def occupy() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise UserError(
                "another process trains there",
                str(folder),
                "wait or end it (a torchrun that was killed leaves its processes behind)",
            ) from error
        # Again: another run may have begun and ended there since.
        _check_output(options.output, folder, options.resume)

    try:
        ranks.from_first(occupy)
        yield
    finally:
        lock.release()


def _say_splits(splits: Splits, say: Callable[[str], None]) -> None:
    tell_skipped(splits.skipped, say)
    for name in splits.copies[:5]:
        say(f"left out {name}: the same picture is held out, or to test on")
    if splits.copies:
        say(f"{len(splits.copies)} copies left out")
    say(f"{len(splits.train)} images to train on, {len(splits.held_out)} held out, "
        f"{len(splits.test) if splits.test else 0} to test on, "
        f"{len(splits.train.classes)} classes")  # fmt: skip
    counts = np.bincount(splits.train.labels, minlength=len(splits.train.classes))
    few, many = int(counts.argmin()), int(counts.argmax())
    classes = splits.train.classes
    if uneven(splits.train):
        say(f"{counts[few]} of class {classes[few]!r} and {counts[many]} of {classes[many]!r}: "
            "all classes are shown equally often")  # fmt: skip
    if splits.test is None:
        say("too few images to set some apart: accuracies are on those that choices are made by")


def average(
    checkpoints: Sequence[str],
    data: Path,
    test: Path | None,
    output: Path,
    subnets: int,
    threads: int,
    quiet: bool,
) -> Path:
    """The mean of checkpoints of which each continues the one before, as a checkpoint.

    Such a mean is often better at every size than the last of them (Wortsman et al. 2022, "Model
    soups": ends of runs from one start lie in one basin). data, test: those of the last, for its
    evaluation. Raises UserError where the checkpoints are not of one line.
    """
    torch.set_num_threads(threads)
    say = Teller(quiet)
    folder = output / "training"
    _check_output(output, folder, resume=False)
    sources = [load_checkpoint(name) for name in checkpoints]
    sources.sort(key=lambda source: len(_runs(source)))
    last = sources[-1]
    runs = _runs(last)
    for source in sources[:-1]:
        own = _runs(source)
        if own != runs[: len(own)] or (source.space, source.classes) != (last.space, last.classes):
            raise UserError(f"{last.path} does not continue it", str(source.path))
        if any(phase["sort"] for run in runs[len(own) :] for phase in run["recipe"]["phases"]):
            raise UserError("channels were sorted since: no mean of these", str(source.path))
    _, seed = _origin(last)
    splits = splits_of(data, test, _asked(last), seed)
    _say_splits(splits, say)
    if splits.train.classes != last.classes:
        raise UserError(f"its classes are not those of {last.path}", f"--data {data}")
    _check_judged(last, splits, str(last.path))
    tensors = {
        name: torch.from_numpy(np.mean([s.tensors[name] for s in sources], axis=0))
        for name in last.tensors
    }
    card = {key: value for key, value in last.card.items() if key not in ("notes", "sha256")}
    card |= {"name": output.resolve().name, "averaged": [len(_runs(source)) for source in sources]}
    archs = spread(last.space, subnets, np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)
    return _hand_over(output, last.space, splits, tensors, archs, card, last.preprocessing, say)


def _asked(source: Checkpoint) -> int:
    """How many images its run was to hold out; copies among them were left out."""
    return int(_origin(source)[0]["asked_held_out"])


def _origin(source: Checkpoint) -> tuple[dict[str, Any], int]:
    """What its card says of its images, and its seed. Raises UserError."""
    try:
        data, seed = source.card["data"], int(source.card["seed"])
        asked = data.get("asked_held_out") or data["held_out_images"]
        given = {"source": data["source"], "train_images": data["train_images"]}
        return {**given, "asked_held_out": asked}, seed
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"it does not say what it was trained on ({error})", str(source.path / "card.json")
        ) from error


def _runs(source: Checkpoint) -> list[dict[str, Any]]:
    """The runs behind a checkpoint, in order."""
    own = {key: value for key, value in source.card.items() if key in _HISTORY}
    return [*source.card.get("before", []), own]


def _hand_over(
    output: Path,
    space: Space,
    splits: Splits,
    shared: Mapping[str, torch.Tensor],
    archs: list[Arch],
    card: dict[str, Any],
    preprocessing: Preprocessing,
    say: Callable[[str], None],
) -> Path:
    """Evaluate subnets and write the checkpoint."""
    recalibration = recalibration_part(space, splits.train)
    scored = Evaluator(recalibration, splits.held_out, preprocessing)
    rows = _evaluate(space, shared, archs, scored, output / "training", say)
    if ranks.rank():
        return output
    tested = None
    if splits.test is not None:
        tested = Evaluator(recalibration, splits.test, preprocessing)
    card["reached"] = _reached(space, shared, tested, rows)
    side = largest_side(space)
    few = _shipped(splits.held_out, 2, side)
    with tempfile.TemporaryDirectory() as scratch:
        calibration, test = Path(scratch) / "calibration.zip", Path(scratch) / "test.zip"
        write_zip(calibration, {"train/": recalibration, "val/": few}, side)
        shown = splits.test if splits.test is not None else few
        write_zip(test, {"": _shipped(shown, 3, side)}, side)
        write_checkpoint(
            output,
            space=space,
            classes=splits.train.classes,
            labels=[LABELS.get(name, name) for name in splits.train.classes],
            preprocessing=preprocessing,
            tensors={name: value.detach().cpu().numpy() for name, value in shared.items()},
            card=card,
            evaluated=rows,
            files={"calibration.zip": calibration, "test.zip": test},
        )
    if len(rows) > 1:
        say(f"next: ofa-specialize --checkpoint {output} --device pixel --budget 20ms")
    return output


def _shipped(images: Images, seed: int, side: int) -> Images:
    """Those that go into a checkpoint."""
    few = split(images, min(_SHIPPED, len(images)), seed)[1]
    size = sum(len(few.reduced(index, side)) for index in range(len(few)))
    count = int(len(few) * min(1.0, _SHIPPED_BYTES / size))
    count = max(count, min(_SHIPPED_AT_LEAST, len(few)))
    return split(few, count, seed)[1] if count < len(few) else few


def convert(
    file: Path,
    space_name: str,
    data: Path,
    output: Path,
    subnets: int,
    threads: int,
    say: Callable[[str], None],
) -> Path:
    """A checkpoint of a file of the research code, its subnets evaluated on the user's images.

    data: as for training; their classes are the file's, in alphabetical order. Raises UserError.
    """
    torch.set_num_threads(threads)
    folder = output / "training"
    tensors, _ = read_reference(file, get_space(space_name))
    classes, own = len(tensors["classifier.bias"]), len(open_images(data)["train"].classes)
    if classes != own:
        raise UserError(
            f"it has {classes} classes, {data} {own}",
            str(file),
            f"`ofa-train --init {file} --space {space_name} --data {data}` trains it on yours",
        )
    _check_output(output, folder, resume=False)
    splits = splits_of(data, None, _HELD_OUT, 0)
    say(f"{subnets} subnets of {file.name} are evaluated, once; they are kept in {output}")
    space = replace(get_space(space_name), classes=classes)
    _say_splits(splits, say)
    archs = spread(space, subnets, np.random.default_rng(0))
    card: dict[str, Any] = {
        "name": output.resolve().name,
        "init": file.name, "published": None, "before": [], "seed": 0,
        "data": {
            "source": data.name,
            "train_images": 0,
            "held_out_images": len(splits.held_out),
            "asked_held_out": _HELD_OUT,
            "test_images": len(splits.test) if splits.test else 0,
            "skipped_images": len(splits.skipped),
        },
    }  # fmt: skip
    shared = {name: torch.from_numpy(value) for name, value in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    return _hand_over(output, space, splits, shared, archs, card, IMAGENET, say)


def evaluate_more(
    checkpoint: str, data: Path | None, count: int, threads: int, quiet: bool
) -> Path:
    """Evaluate ``count`` more subnets, the most informative, and add them to the checkpoint.

    On the images that were held out of ``data``, the run's own training images; without it on the
    held-out images that the checkpoint ships, which may be some of those: a few subnets that are
    known are scored again then, and what they differ by is taken off. Raises UserError.
    """
    torch.set_num_threads(threads)
    say = Teller(quiet)
    source = load_checkpoint(checkpoint)
    card, (_, seed) = source.card, _origin(source)
    recalibration, held_out = source.samples()
    if data is not None:
        splits = splits_of(data, None, _asked(source), seed)
        _say_splits(splits, say)
        if splits.train.classes != source.classes:
            raise UserError(f"its classes are not those of {source.path}", f"--data {data}")
        held_out = splits.held_out
        _check_unseen(source, [held_out], str(source.path))
    known = source.evaluated
    rng = np.random.default_rng([seed, len(known.accuracy)])
    archs = informative(source.space, known.genotypes, count, rng)
    anchors = known.take(
        rng.permutation(len(known.accuracy))[: 0 if data is not None else _ANCHORS]
    )
    folder = source.path / "training"
    folder.mkdir(exist_ok=True)
    tensors = {name: torch.from_numpy(value) for name, value in source.tensors.items()}
    evaluator = Evaluator(recalibration, held_out, source.preprocessing)
    again = [source.space.decode(row) for row in anchors.genotypes]
    scored = _evaluate(source.space, tensors, [*again, *archs], evaluator, folder, say)
    values = {arch: value for arch, _, value, _ in scored}

    def of(archs: Sequence[Arch]) -> Evaluated:
        accuracy = np.array([values[arch] for arch in archs], float)
        return Evaluated(
            source.space.encode(archs), accuracy, np.full(len(archs), len(held_out), np.int64)
        )

    new = of(archs) if data is not None else of(archs).as_beside(anchors, of(again))
    joined = known.joined(new)
    rows = [
        (arch, macs(lower(source.space, arch)), float(accuracy), int(n))
        for arch, accuracy, n in zip(
            map(source.space.decode, joined.genotypes), joined.accuracy, joined.images, strict=True
        )
    ]
    write_checkpoint(
        source.path,
        space=source.space,
        classes=source.classes,
        labels=source.labels,
        preprocessing=source.preprocessing,
        tensors=source.tensors,
        card=card,
        evaluated=rows,
        files={name: source.path / name for name in ("calibration.zip", "test.zip")},
    )
    say(f"{len(rows)} evaluated subnets in {source.path}")
    return source.path


def _check_output(output: Path, folder: Path, resume: bool) -> None:
    held = (folder / "state.pt").exists()
    if resume:
        if not held:
            raise UserError("no training state to resume", str(folder), "leave --resume out")
        return
    if held:
        raise UserError("it holds a training run", str(output), "add --resume to continue it")
    if there := [name for name in FILES if (output / name).exists()]:
        what = "a checkpoint" if there[0] == FILES[0] else f"{there[0]}, which would be replaced"
        raise UserError(f"it holds {what}", str(output), "choose another --output")
    check_writable(output, str(output))


def _start(
    options: Options, splits: Splits
) -> tuple[Space, dict[str, Array], Teacher | None, Recipe, Preprocessing, dict[str, Any]]:
    """Space, first weights, teacher, recipe, preprocessing, and what a card says of their origin.

    A checkpoint of other classes gives all weights but the classifier.
    """
    classes, fresh = len(splits.train.classes), False
    given: dict[str, Any] = {"init": options.init, "published": None, "before": []}
    tensors: dict[str, Array] | None = None
    wanted = options.space or None
    if isinstance(wanted, str):
        wanted = get_space(wanted)
    space = replace(wanted or get_space("lite"), classes=classes)
    preprocessing = LITE0
    if options.init in PRETRAINED:
        given["published"] = options.init
    elif options.init.endswith(".pth"):
        if wanted is None:
            raise UserError(
                "the file does not say of which space it is", options.init, "add --space mbv3-w1.0"
            )
        tensors, _ = read_reference(Path(options.init), space)
        fresh = len(tensors["classifier.bias"]) != classes
        preprocessing = IMAGENET
        given["init"] = Path(options.init).name
    elif options.init != "none":
        source = load_checkpoint(options.init)
        if wanted is not None:
            _check_same(replace(source.space, classes=classes), space, source.path)
        fresh = source.classes != splits.train.classes
        _check_held_out(source, options, splits, f"--init {options.init}")
        space, tensors = replace(source.space, classes=classes), dict(source.tensors)
        preprocessing = source.preprocessing
        given = {
            "init": source.name,
            "published": source.card.get("published"),
            "before": _runs(source),
        }
    published = given["published"]
    recipe = options.recipe or _default_recipe(space, published, tensors, fresh)
    if options.teacher and not options.recipe:
        recipe = "tiny-taught"
    if isinstance(recipe, str):
        recipe = get_recipe(recipe)
    recipe = recipe.of_space(space)
    if options.teacher and recipe.teacher != "checkpoint":
        raise UserError(
            f"recipe {recipe.name!r} has a teacher of its own (--teacher)",
            fix="leave it out, or take --recipe tiny-taught",
        )
    # What can be refused is, before a teacher is fitted, which takes long.
    if recipe.teacher == "checkpoint":
        _check_teaching(options, splits)
    if options.arch:
        space.check(Arch.parse(options.arch))
    teacher = None
    if published is not None:
        network = PRETRAINED[published](space)
        teacher = Teacher(space, network, recipe.teacher_resolution, splits.train)
        if tensors is None:
            tensors = {**network.tensors, **teacher.classifier}
            if options.arch:  # trained alone, it shall begin with the channels that matter most too
                tensors = sort_channels(space, tensors)
        elif fresh:  # its features are near the published ones, which this classifier is of
            tensors |= teacher.classifier
        elif recipe.moved_back:
            tensors = moved_back(space, tensors, network.tensors, recipe.moved_back)
    start = initial(space, options.seed)
    if tensors is None:
        tensors = start
    elif fresh and published is None:
        tensors |= {name: start[name] for name in ("classifier.weight", "classifier.bias")}
    if published is None and recipe.teacher == "pretrained" and not options.recipe:
        recipe = replace(recipe, teacher="largest", dark=0.0)
    train.check_teacher(recipe, teacher)
    return space, tensors, teacher, recipe, preprocessing, given


def _check_same(has: Space, wanted: Space, where: Path) -> None:
    """Raise UserError, naming the first tensor that differs, where a checkpoint's space is another.

    Their classes are not compared.
    """
    if has == wanted:
        return
    own, needed = shapes(has), shapes(wanted)
    names = [name for name in needed | own if own.get(name) != needed.get(name)]
    first = ""
    if names:
        has_it, needs = (each.get(names[0], "missing") for each in (own, needed))
        first = f": {names[0]} is {has_it}, the space needs {needs}"
    other = f"not of {wanted.name!r}" if has.name != wanted.name else "and that has changed"
    raise UserError(
        f"it is of space {has.name!r}, {other}{first}", str(where),
        "leave the space out (--space), or train with --init none",
    )  # fmt: skip


def _check_teaching(options: Options, splits: Splits) -> None:
    """Raise UserError where no checkpoint is there that may teach."""
    if not options.teacher:
        raise UserError(
            "this recipe distils from a checkpoint (--recipe)",
            fix="add --teacher CHECKPOINT, of the same classes",
        )
    source = load_checkpoint(options.teacher)
    where = f"--teacher {options.teacher}"
    if source.classes != splits.train.classes:
        raise UserError(f"its classes are not those of {options.data}", where)
    _check_held_out(source, options, splits, where)


def _check_held_out(source: Checkpoint, options: Options, splits: Splits, where: str) -> None:
    """Raise UserError where it was trained on images that this run would hold out, or test on."""
    data, seed = _origin(source)
    if not data["train_images"]:
        return
    same = source.classes == splits.train.classes
    if same and data["source"] == Path(options.data).name:
        if (_asked(source), seed) != (options.held_out, options.seed):
            raise UserError(
                "it has been trained on images that would be held out here", where,
                f"add --held-out {_asked(source)} --seed {seed}",
            )  # fmt: skip
        _check_judged(source, splits, where)
    apart = [splits.held_out] if splits.test is None else [splits.held_out, splits.test]
    _check_unseen(source, apart, where)


def _check_judged(source: Checkpoint, splits: Splits, where: str) -> None:
    """Raise UserError where other images are set apart than when it was trained."""
    if source.card["data"].get("judged", splits.judged) != splits.judged:
        raise UserError(
            "its images, or --test, have changed since it was trained: it has seen some of those "
            "that would be set apart here", where, "give those of then, or begin anew",
        )  # fmt: skip


def _check_unseen(source: Checkpoint, apart: Iterable[Images], where: str) -> None:
    """Raise UserError where it was trained on some of these, by those that it ships.

    They are known by their pixels, whatever their files are called.
    """
    seen = set(source.samples()[0].digests().values())
    side = largest_side(source.space)
    if any(seen & set(images.digests(side).values()) for images in apart):
        raise UserError(
            "it has been trained on images that would be set apart here", where,
            "give the same --data and --test as then, or begin anew",
        )  # fmt: skip


def _lessons(
    options: Options, splits: Splits, folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], Array]:
    """What a card says of the checkpoint that teaches, and its logits of the training images.

    They are kept in ``folder``, for a run that is resumed.
    """
    source = load_checkpoint(options.teacher)
    kept = folder / f"lessons-{source.sha256[:12]}-{splits.digest[:12]}.npz"
    if kept.exists():
        with np.load(kept) as file:
            arch, logits = Arch.parse(str(file["arch"])), file["logits"]
    else:
        say(f"{source.name} looks at {len(splits.train)} images")
        arch, logits = taught(source, splits.train)
        partial = kept.with_suffix(".partial")
        try:
            with partial.open("wb") as target:
                np.savez(target, arch=str(arch), logits=logits)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(
                f"what the teacher says cannot be written ({error.strerror})",
                str(folder),
                "free some space and run the same command",
            ) from error
        partial.replace(kept)
    right = 100 * (logits.argmax(1) == splits.train.labels).mean()
    say(f"{source.name} knows {right:.1f} % of them")
    # Of this subnet: more may have been evaluated since.
    row = (source.evaluated.genotypes == source.space.encode([arch])).all(1).argmax()
    held_out = float(source.evaluated.accuracy[row])
    about = {"name": source.name, "arch": str(arch), "held_out": held_out, "runs": _runs(source)}
    return about, logits


def _default_recipe(
    space: Space, published: str | None, tensors: Mapping[str, Array] | None, fresh: bool
) -> str:
    if tensors is None:
        return "pretrained" if published else "tiny" if space.name == "mcu" else "scratch"
    if fresh:
        return "adapt"
    return "tiny-refine" if published is None and space.name == "mcu" else "refine"


def _evaluate(
    space: Space,
    tensors: Mapping[str, torch.Tensor],
    archs: list[Arch],
    evaluator: Evaluator,
    folder: Path,
    say: Callable[[str], None],
) -> list[tuple[Arch, int, float, int]]:
    """(arch, MACs, accuracy, images) of each; rows already in ``folder`` are not computed again.

    In rounds of one subnet a process, so that the file always holds all but the last round.
    """
    file = folder / f"subnets-{_digest(tensors, evaluator)}.csv"
    wanted = {str(arch) for arch in archs}

    def read() -> dict[str, float]:
        if not file.exists():
            return {}
        text = file.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the disk was full, or a kill came, while the last line was written
            file.write_text(whole)
        rows = csv.reader(whole.splitlines())
        return {arch: float(value) for arch, value in rows if arch in wanted}

    known = ranks.from_first(read)
    began = time.monotonic()
    # By resolution, so that the images are resized once for each.
    ordered = sorted(archs, key=lambda a: a.resolution)
    unknown = [arch for arch in ordered if str(arch) not in known]
    with file.open("a", newline="") if ranks.rank() == 0 else nullcontext() as opened:
        for start in range(0, len(unknown), ranks.count()):
            turn = unknown[start : start + ranks.count()]
            own = turn[ranks.rank() :][:1]
            values = ranks.gather([evaluator.accuracy(space, arch, tensors) for arch in own])
            for arch, value in zip(turn, itertools.chain(*values), strict=True):
                known[str(arch)] = value
                if opened is not None:
                    csv.writer(opened).writerow([str(arch), f"{value:.4f}"])
                    opened.flush()
                done = len(known)
                if done % 25 == 0 or done == len(archs):
                    say(f"evaluated {done} of {len(archs)} subnets, "
                        f"{time.monotonic() - began:.0f} s")  # fmt: skip
    count = len(evaluator.images)
    return [(a, macs(lower(space, a)), known[str(a)], count) for a in archs]


def _digest(tensors: Mapping[str, torch.Tensor], evaluator: Evaluator) -> str:
    """Of all that an accuracy depends on beside the architecture."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    for images in (evaluator.recalibration, evaluator.images):
        for index in range(len(images)):
            digest.update(images.bytes_of(index))
        digest.update(images.labels.tobytes())
    return digest.hexdigest()


def _reached(
    space: Space,
    shared: Mapping[str, torch.Tensor],
    test: Evaluator | None,
    rows: list[tuple[Arch, int, float, int]],
) -> list[dict[str, Any]]:
    """What a card says of the smallest and the largest subnet."""
    reached = []
    by_size = sorted(rows, key=lambda row: row[1])
    for arch, size, held_out, count in dict.fromkeys((by_size[0], by_size[-1])):
        entry: dict[str, Any] = {
            "arch": str(arch), "macs": size, "held_out": {"value": held_out, "n": count},
        }  # fmt: skip
        if test is not None:
            value, count = test.accuracy(space, arch, shared), len(test.images)
            low, high = wilson(value, count)
            entry["test"] = {"value": value, "n": count, "low": low, "high": high}
        reached.append(entry)
    return reached


def _card(
    options: Options, run: train.Run, splits: Splits, recipe: Recipe, given: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": options.output.resolve().name,
        **given,
        "data": {
            "source": Path(options.data).name,
            "train_images": len(splits.train),
            "held_out_images": len(splits.held_out),
            "asked_held_out": options.held_out,
            "test_images": len(splits.test) if splits.test else 0,
            "skipped_images": len(splits.skipped),
            "judged": splits.judged,
        },
        "recipe": recipe.as_dict(),
        "seed": options.seed,
        "steps": run.steps,
        "epochs": round(run.steps / run.loader.steps_per_epoch, 2),
        "hours": round(run.seconds / 3600, 3),
        "rollbacks": run.rollbacks,
        "machine": {
            "processor": processor_name(),
            "threads": options.threads,
            "processes": ranks.count(),
            "device": str(run.device),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "pillow", "ofa-specializer")},
        },
        "commit": _commit(),
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Teller:
    """Tells how a run goes: a bar on a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self.console, self.quiet = stderr(), quiet

    def __call__(self, text: str) -> None:
        """A line."""
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def training(self, recipe: Recipe):  # type: ignore[no-untyped-def]
        """Gives the callback of ``Run.train``."""
        fancy = self.console.is_terminal and not self.quiet
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:.0f} images/s"),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, disable=not fancy) as bar:
            task = bar.add_task(recipe.name, total=None, loss=float("nan"), speed=0.0)
            last = time.monotonic()

            def tell(p: train.Progress) -> None:
                nonlocal last
                if p.note:
                    self(p.note)
                if fancy:
                    bar.update(
                        task, completed=p.step, total=p.steps, description=p.phase,
                        loss=p.loss, speed=p.images_per_second,
                    )  # fmt: skip
                elif time.monotonic() - last > 30 or p.step == p.steps:
                    last = time.monotonic()
                    self(
                        f"step {p.step}/{p.steps} {p.phase}: loss {p.loss:.3f}, "
                        f"{p.images_per_second:.1f} images/s, {p.seconds_left / 60:.0f} min left"
                    )

            yield tell
