"""The training loop: sandwich, distillation, guard, resume.

Every random draw of a step comes from (seed, step, attempt), and the state is saved at fixed steps
only; so a run that was killed and resumed gives the weights of one that was not, bit for bit on
one machine with one number of threads. Several processes (``ofa.ranks``) draw the same subnets,
take a part of the images each, and share one gradient: their weights stay the same in every bit.

``python -m ofa.train``, the form that ``torchrun`` takes, is ``ofa-train``.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import pickle
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa import ranks
from ofa.data import Batch, Loader, Splits
from ofa.elastic import run
from ofa.errors import UserError
from ofa.layers import lower
from ofa.preprocessing import LITE0, Preprocessing
from ofa.recipe import Phase, Recipe
from ofa.sampling import Sampler
from ofa.space import Arch, Space
from ofa.supernet import Supernet
from ofa.teacher import Teacher
from ofa.weights import Array, cut, sort_channels

__all__ = ["Progress", "Run", "View", "adaptive_alpha", "check_teacher", "plan_step"]

SAVE_EVERY = 100  # steps; a kill loses at most these, a collapse rolls back to the last of them
_MAX_ROLLBACKS = 5
#: What reading a damaged state raises.
_UNREADABLE = (
    OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError,
)  # fmt: skip
#: The largest ratio of probabilities in the adaptive alpha-divergence (AlphaNet's).
_ALPHA_CLIP = 5.0


@dataclass(frozen=True, slots=True)
class View:
    """One subnet of a step, and its role in the sandwich."""

    role: str
    arch: Arch


def plan_step(
    phase: Phase, space: Space, sampler: Sampler, rng: np.random.Generator
) -> tuple[View, ...]:
    """The subnets of one step, the largest first. ``space`` is the phase's part of the space."""

    def resolution(allowed: tuple[int, ...]) -> int:
        return int(rng.choice(allowed))

    views = []
    if rng.random() < phase.largest:
        allowed = phase.largest_resolutions or space.resolutions
        views.append(View("largest", space.largest(resolution(allowed))))
    if rng.random() < phase.smallest:
        views.append(View("smallest", space.smallest(resolution(space.resolutions))))
    elif phase.smallest or not (phase.random or views):
        views.append(View("random", sampler.draw(rng, resolution(space.resolutions))))
    views += [
        View("random", sampler.draw(rng, resolution(space.resolutions)))
        for _ in range(phase.random)
    ]
    return tuple(views)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run tells after each step."""

    step: int
    steps: int
    phase: str
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float
    note: str = ""


def check_teacher(recipe: Recipe, teacher: Teacher | None) -> None:
    """Raise UserError where a recipe needs a published network's word and there is none."""
    if recipe.teacher == "pretrained" and teacher is None:
        raise UserError(
            f"recipe {recipe.name!r} distils from a published network",
            fix="add --init efficientnet-lite0, or take --recipe scratch",
        )


class Run:
    """A training run whose state lives in ``folder``."""

    def __init__(
        self,
        space: Space,
        recipe: Recipe,
        splits: Splits,
        start: dict[str, Array],
        teacher: Teacher | None,
        folder: Path,
        *,
        seed: int = 0,
        only: Arch | None = None,
        device: str = "cpu",
        preprocessing: Preprocessing = LITE0,
        taught: Array | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        """taught: (N, classes) logits of the training images, of a teacher that is a checkpoint.

        origin: what ``start`` and ``taught`` are of, in plain values; a resumed run has the same.
        """
        check_teacher(recipe, teacher)
        self.space, self.recipe, self.splits, self.folder = space, recipe, splits, folder
        self.seed, self.only, self.device = seed, only, torch.device(device)
        self.preprocessing, self.origin = preprocessing, origin or {}
        self.model = Supernet(space, ranks.from_first(lambda: start)).to(self.device)
        self.teacher = teacher.to(self.device) if teacher is not None else None
        self.taught = None if taught is None else torch.from_numpy(taught)
        self.bf16 = recipe.bf16 and _has_bf16(self.device)
        self._share(recipe.batch * ranks.count())
        self.step, self.steps, self.attempt, self.rollbacks = 0, 0, 0, 0
        self.phase_index = -1
        self.lr_scale = 1.0
        self.loss, self.best_loss = math.nan, math.inf
        self.seconds = 0.0
        self._good: dict[str, Any] | None = None
        self._ema: dict[str, Tensor] | None = None
        self._frozen: dict[str, Tensor] | None = None
        self._parts: dict[int, tuple[Space, Sampler]] = {}
        self.optimizer = self._new_optimizer()

    def _share(self, batch: int) -> None:
        """``batch`` images a step, of which each process takes its part."""
        self._batch = batch
        recipe = self.recipe
        self.loader = Loader(
            self.splits.train, self.seed, batch, recipe.jitter, recipe.sharpen, self.preprocessing
        )

    @property
    def _freezes(self) -> bool:
        return self.recipe.teacher == "frozen" and self.only is None

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """What is evaluated and handed over: the moving average, where the recipe keeps one."""
        return self.model.shared if self._ema is None else self._ema

    # -- state ------------------------------------------------------------------------------

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that began.

        The batch is that of all processes: another number of them may resume the run.
        """
        return {
            "space": asdict(self.space),
            "recipe": self.recipe.as_dict() | {"batch": self._batch},
            "seed": self.seed,
            "only": str(self.only) if self.only else None,
            "classes": list(self.splits.train.classes),
            "images": len(self.splits.train),
            "pixels": self.splits.digest,
            "preprocessing": self.preprocessing.as_dict(),
            **self.origin,
        }

    def _state(self) -> dict[str, Any]:
        return {
            "identity": json.dumps(self.identity, sort_keys=True),
            "counters": {
                name: getattr(self, name)
                for name in (
                    "step", "steps", "attempt", "rollbacks", "phase_index",
                    "lr_scale", "loss", "best_loss", "seconds",
                )
            },
            "model": {k: v.detach().clone() for k, v in self.model.shared.items()},
            "optimizer": _copied(self.optimizer.state_dict()),
            "ema": _copied(self._ema),
            "frozen": self._frozen,  # never changed in place
        }  # fmt: skip

    def _restore(self, state: dict[str, Any], counters: bool = True) -> None:
        if counters:
            for name, value in state["counters"].items():
                setattr(self, name, value)
        with torch.no_grad():
            for name, value in state["model"].items():
                self.model.shared[name].copy_(value)
        self.optimizer = self._new_optimizer()
        self.optimizer.load_state_dict(_copied(state["optimizer"]))
        self._ema = self._placed(state.get("ema"))
        self._frozen = self._placed(state.get("frozen"))

    def _placed(self, tensors: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
        """Copies on the device."""
        if tensors is None:
            return None
        return {name: value.to(self.device, copy=True) for name, value in tensors.items()}

    def save(self) -> None:
        """Remember this state, and write it; the file of the last save stays until it is whole."""
        self._good = self._state()
        if ranks.rank():
            return
        target = self.folder / "state.pt"
        partial = target.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(self._good, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch's own where the disk is full
            partial.unlink(missing_ok=True)
            raise UserError(
                f"the state of step {self.step} cannot be written, the one before it stays",
                str(self.folder),
                "free some space and run the same command with --resume",
            ) from error
        partial.replace(target)

    def resume(self) -> None:
        """Continue from the folder's state. Raises UserError where it is of another run.

        As many images a step as when it began, shared by the processes that there are now.
        """
        path = self.folder / "state.pt"

        def read() -> tuple[dict[str, Any], dict[str, Any]]:
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                identity = json.loads(state["identity"])
                recipe = Recipe.of(identity["recipe"]).as_dict()
            except _UNREADABLE as error:
                raise UserError(f"no training state to resume ({error})", str(path)) from error
            return state, json.loads(json.dumps(identity | {"recipe": recipe}))

        state, identity = ranks.from_first(read)
        batch = identity["recipe"]["batch"]
        if batch % ranks.count():
            raise UserError(
                f"{batch} images a step cannot be shared by {ranks.count()} processes", str(path)
            )
        self._share(batch)
        mine = json.loads(json.dumps(self.identity))
        here = dict(_leaves(mine))
        there = dict(_leaves(mine | identity))  # an older version did not write every key
        for name in here | there:
            if there.get(name) != here.get(name):
                raise UserError(
                    f"the run there differs in {name}: {there.get(name)} there, "
                    f"{here.get(name)} here",
                    str(path),
                    "resume with its own options",
                )
        self._restore(state)
        self._good = state

    # -- the loop ---------------------------------------------------------------------------

    def train(self, steps: int, tell: Callable[[Progress], None]) -> None:
        """Train until ``steps`` are done (a resumed run: until the steps that it began with)."""
        if self._good is None:
            self.steps = steps
        with contextlib.ExitStack() as stack:
            log = None
            if ranks.rank() == 0:
                log = _Log(self.folder / "log.csv", self.step)
                stack.callback(log.close)
            try:
                self._train(log, tell)
            except ranks.LostProcess as error:
                raise ranks.LostProcess(
                    f"{error.what} (step {self.step})", str(self.folder)
                ) from error

    def _train(self, log: _Log | None, tell: Callable[[Progress], None]) -> None:
        ends = self.recipe.phase_ends(self.steps)
        planned = self._plan(self.step, ends)
        pending = self._submit(self.step, planned, ends)
        began, paused = time.monotonic(), self.seconds
        window: list[tuple[float, int]] = []
        while self.step < self.steps:
            index = _phase_of(self.step, ends)
            if index != self.phase_index:
                self._begin_phase(index)
            if self._good is None:
                self.save()
            batch: Batch = pending.result()
            views = planned
            # One network may be trained by the clock: what looks like its last step may not be.
            if self.step + 1 < self.steps or self.only is not None:
                planned = self._plan(self.step + 1, ends)
                pending = self._submit(self.step + 1, planned, ends)
            lr = self._lr(ends)
            loss = self._update(batch, views, lr)
            self.loss = loss if math.isnan(self.loss) else 0.95 * self.loss + 0.05 * loss
            self._average(ends)
            self.step += 1
            self.seconds = paused + time.monotonic() - began
            window = [*window[-50:], (time.monotonic(), self.loader.batch)]
            speed = sum(n for _, n in window[1:]) / max(window[-1][0] - window[0][0], 1e-9)
            note, good = "", False
            if self._collapsed(loss):
                note = self._roll_back()
                planned = self._plan(self.step, ends)
                pending = self._submit(self.step, planned, ends)
            else:
                due = self.step % SAVE_EVERY == 0 and not self._high(loss)
                good = due or self.step == self.steps
            left = (self.steps - self.step) * self.loader.batch / speed if len(window) > 1 else 0.0
            progress = Progress(
                self.step,
                self.steps,
                self.recipe.phases[index].name,
                self.loss,
                lr,
                speed,
                left,
                note,
            )
            if log is not None:
                log.write(progress, loss, self.seconds)
            if good:  # after its row: what is beyond the state is dropped by --resume
                self.best_loss = min(self.best_loss, self.loss)
                self.save()
            tell(progress)

    def seconds_per_step(self, probes: int = 12) -> float:
        """Measured by updates spread over the phases, at a learning rate of zero."""
        ends = self.recipe.phase_ends(probes)
        taken: list[float] = []
        for probe in range(probes):
            began = time.monotonic()
            views = self._plan(probe, ends)
            if self._freezes and _phase_of(probe, ends):
                self._frozen = self._placed(dict(self.model.shared))
            self._update(self._submit(probe, views, ends).result(), views, 0.0)
            taken.append(time.monotonic() - began)
        self._frozen = None
        return float(np.mean(taken[1:]))

    def _plan(self, step: int, ends: tuple[int, ...]) -> tuple[View, ...]:
        rng = np.random.default_rng([self.seed, step, self.attempt, 3])
        index = _phase_of(step, ends)
        phase = self.recipe.phases[index]
        if self.only is not None:
            return (View("largest", self.only),)
        space, sampler = self._part(index)
        return plan_step(phase, space, sampler, rng)

    def _part(self, index: int) -> tuple[Space, Sampler]:
        if index not in self._parts:
            space = self.recipe.phases[index].restrict(self.space)
            self._parts[index] = (space, Sampler(space))
        return self._parts[index]

    def _submit(self, step: int, views: tuple[View, ...], ends: tuple[int, ...]) -> Any:
        resolutions = {view.arch.resolution for view in views}
        if self.recipe.teacher == "pretrained":
            resolutions.add(self.recipe.teacher_resolution)
        crop = self.recipe.phases[_phase_of(step, ends)].crop
        return self.loader.submit(step, self.attempt, resolutions, crop)

    def _begin_phase(self, index: int) -> None:
        if self._freezes and index and self._frozen is None:
            self._frozen = self._placed(dict(self.weights))
        if self.recipe.phases[index].sort and self.only is None:
            ordered = sort_channels(self.space, {k: v.data for k, v in self.model.shared.items()})
            with torch.no_grad():
                for name, value in ordered.items():
                    self.model.shared[name].copy_(value)
        if self.recipe.ema:
            self._ema = self._placed(dict(self.model.shared))
        self.optimizer = self._new_optimizer()
        self.phase_index, self.best_loss, self.loss = index, math.inf, math.nan

    def _new_optimizer(self) -> torch.optim.Optimizer:
        decay, plain = [], []
        last = "" if self.space.head else f"s{len(self.space.stages) - 1}."
        for name, parameter in self.model.shared.items():
            # A convolution that reads a projection normalizes away a constant: its bias has no
            # gradient but rounding noise, which Adam would turn into full steps.
            if name.endswith("project.bn.bias") and not (last and name.startswith(last)):
                parameter.requires_grad_(False)
            elif parameter.ndim > 1 and ".to" not in name:
                decay.append(parameter)
            else:
                plain.append(parameter)
        groups = [
            {"params": decay, "weight_decay": self.recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        if self.recipe.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.recipe.lr, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, lr=self.recipe.lr)

    def _lr(self, ends: tuple[int, ...]) -> float:
        start, own = self._start(ends), self.recipe.phases[self.phase_index].lr
        warm = min(1.0, (self.step - start + 1) / self.recipe.warmup)
        done = self.step / self.steps
        if own is not None:
            done = (self.step - start) / (ends[self.phase_index] - start)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return (self.recipe.lr if own is None else own) * self.lr_scale * warm * cosine

    def _start(self, ends: tuple[int, ...]) -> int:
        """The step at which the phase began."""
        return ends[self.phase_index - 1] if self.phase_index else 0

    @torch.no_grad()
    def _average(self, ends: tuple[int, ...]) -> None:
        """Move the average of the weights; a young one faster, for its start is no average."""
        if self._ema is not None:
            age = self.step - self._start(ends)
            decay = min(self.recipe.ema, (1 + age) / (10 + age))
            for name, value in self.model.shared.items():
                self._ema[name].lerp_(value, 1 - decay)

    def _update(self, batch: Batch, views: tuple[View, ...], lr: float) -> float:
        """One optimizer step on all views; returns the mean of their losses.

        NaN, and no step, where the gradient is not finite.
        """
        recipe = self.recipe
        labels = batch.labels.to(self.device)
        hard = F.one_hot(labels, self.space.classes).float()
        dark: Tensor | None = None
        soft = hard
        if self.teacher is not None and recipe.teacher == "pretrained":
            x = batch.x[recipe.teacher_resolution].to(self.device)
            dark, logits = self.teacher(x)
            soft = logits.softmax(1)
        # The first phase makes the teacher that is then frozen; until then it teaches as it is.
        in_place = recipe.teacher in ("largest", "frozen") and self._frozen is None
        taught = None if self.taught is None else self.taught[batch.rows].to(self.device)
        frozen: dict[int, Tensor] = {}
        # Subnets that see the same images share the layers that all begin with: one forward, and
        # one backward of the sum of what theirs give.
        stems: dict[int, tuple[Tensor, Tensor]] = {}
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for view in views:
            resolution = view.arch.resolution
            x = batch.x[resolution].to(self.device)
            with self._precision():
                if resolution not in stems:
                    maps = self.model.begin(x)
                    stems[resolution] = (maps, maps.detach().requires_grad_())
                features = self.model.features(stems[resolution][1], view.arch)
                logits = self.model.classify(features)
            features, logits = features.float(), logits.float()
            if self._frozen is not None:
                if resolution not in frozen:
                    frozen[resolution] = self._taught(x, self._frozen)
                soft = frozen[resolution]
            if in_place and view.role == "largest":
                loss = F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
                soft = logits.detach().softmax(1)
            elif taught is not None:
                loss = recipe.hard * F.cross_entropy(logits, labels)
                loss = loss + (1 - recipe.hard) * _distance(logits, taught, recipe.temperature)
            elif recipe.distill == "alpha":
                loss = recipe.hard * F.cross_entropy(logits, labels)
                loss = loss + (1 - recipe.hard) * adaptive_alpha(logits, soft)
            else:
                loss = F.cross_entropy(logits, recipe.hard * hard + (1 - recipe.hard) * soft)
            if dark is not None and self.teacher is not None and recipe.dark:
                loss = loss + recipe.dark * _distance(
                    self.teacher.dark(features), dark, recipe.temperature
                )
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        for maps, seen in stems.values():
            maps.backward(seen.grad)  # type: ignore[no-untyped-call]
        if ranks.count() > 1:
            total = self._join(total)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        if not math.isfinite(norm):
            return math.nan
        self.optimizer.step()
        return total / len(views)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @torch.no_grad()
    def _taught(self, x: Tensor, frozen: Mapping[str, Tensor]) -> Tensor:
        """(N, classes) probabilities of the frozen largest subnet, normalized by this batch."""
        layers = lower(self.space, self.space.largest(x.shape[-1]))
        with self._precision():
            logits = run(layers, lambda layer: cut(layer, frozen), x, self.space.bn_eps)
        return logits.float().softmax(1)

    def _join(self, total: float) -> float:
        """Mean of the processes' gradients and of a number, in one exchange.

        All trained the same subnets: a parameter without gradient has none in any process.
        """
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        number = torch.tensor([total], device=self.device)
        flat = ranks.mean_(torch.cat([*(grad.reshape(-1) for grad in grads), number]))
        *parts, number = torch.split(flat, [*(grad.numel() for grad in grads), 1])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view(grad.shape))
        return float(number)

    # -- the guard --------------------------------------------------------------------------

    def _collapsed(self, loss: float) -> bool:
        return not math.isfinite(loss) or self._high(self.loss)

    def _high(self, loss: float) -> bool:
        """Whether a loss is none of a network that learned, though it may be that of one batch."""
        return loss > 1.5 * self.best_loss + 0.5

    def _roll_back(self) -> str:
        """Return to the last good state, with other draws and half the learning rate."""
        assert self._good is not None
        rollbacks, scale = self.rollbacks + 1, self.lr_scale / 2
        if rollbacks > _MAX_ROLLBACKS:
            raise UserError(
                f"training collapsed {rollbacks} times (step {self.step})",
                str(self.folder),
                f"the state of step {self._good['counters']['step']} is kept; "
                "begin again with another --output and --seed",
            )
        at = self.step
        self._restore(self._good)
        self.rollbacks = self.attempt = rollbacks
        self.lr_scale = scale
        return f"collapse at step {at}: back to step {self.step}, learning rate halved"


def _distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence at a temperature, scaled back by its square (Hinton et al. 2015, sec. 2)."""
    divergence = F.kl_div(
        (student / temperature).log_softmax(1),
        (teacher / temperature).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def adaptive_alpha(logits: Tensor, soft: Tensor) -> Tensor:
    """Adaptive alpha-divergence of a student from its teacher (Wang et al. 2021, AlphaNet, sec. 4).

    logits: (N, classes) of the student. soft: (N, classes) probabilities of the teacher. Of each
    image the larger of two divergences counts: alpha = -1 punishes probability where the teacher
    has little, alpha = 1 (the usual one) little where the teacher has much. The ratio of alpha = -1
    is clipped at 5. The value, a mean over images, is the divergence; its gradient is that of the
    paper's surrogate, in which the clipped ratio is a constant.
    """
    log_q = logits.log_softmax(1)
    fixed = log_q.detach()
    q = fixed.exp()
    ratio = (fixed - soft.log()).exp().clamp(max=_ALPHA_CLIP)
    over = (q * (ratio - 1)).sum(1) / 2
    under = (torch.xlogy(soft, soft) - soft * fixed).sum(1)
    weight = torch.where((over > under)[:, None], q * (0.5 - ratio), soft)
    surrogate = -(weight * log_q).sum(1)
    return (torch.maximum(over, under) + surrogate - surrogate.detach()).mean()


def _has_bf16(device: torch.device) -> bool:
    """Whether the processor itself multiplies bfloat16: emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    processor = Path("/proc/cpuinfo")
    words = processor.read_text() if processor.exists() else ""
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", words) is not None


def _phase_of(step: int, ends: tuple[int, ...]) -> int:
    return next(index for index, end in enumerate(ends) if step < end or index == len(ends) - 1)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values one by one, with the way to each: ``recipe.phases.0.share``."""
    if not isinstance(value, dict | list) or not value:
        yield path, value
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(inner, f"{path}.{key}" if path else str(key))


def _copied(state: Any) -> Any:
    """A deep copy of nested dicts and lists of tensors and numbers."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_copied(value) for value in state]
    return state


class _Log:
    """``log.csv``, and TensorBoard events where it is installed."""

    FIELDS = ("step", "phase", "loss", "smoothed_loss", "lr", "images_per_second", "seconds")

    def __init__(self, path: Path, step: int) -> None:
        rows: list[list[str]] = []
        if step and path.exists():  # a resumed run repeats the steps after the last save
            with path.open() as file:
                rows = [row for row in csv.reader(file) if row[0].isdigit() and int(row[0]) <= step]
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([self.FIELDS, *rows])
        partial.replace(path)
        self._file = path.open("a", newline="")
        self._csv = csv.writer(self._file)
        self._board: Any = None
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=step + 1)

    def write(self, progress: Progress, loss: float, seconds: float) -> None:
        p = progress
        self._csv.writerow(
            [p.step, p.phase, f"{loss:.5f}", f"{p.loss:.5f}", f"{p.lr:.3e}",
             f"{p.images_per_second:.1f}", f"{seconds:.1f}"]
        )  # fmt: skip
        self._file.flush()
        if self._board is not None:
            self._board.add_scalar("loss", loss, p.step)
            self._board.add_scalar("lr", p.lr, p.step)
            self._board.add_scalar("images_per_second", p.images_per_second, p.step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


if __name__ == "__main__":
    from ofa.cli import main

    main()
