"""A training recipe as a value: phases over ever larger restricted spaces.

Progressive shrinking (Cai et al. 2020, sec. 3.3) is a list of phases, each of which opens more of
the space. Inside a phase every step follows the sandwich rule (Yu and Huang 2019, sec. 3.1): the
largest, the smallest and random subnets share one update, and the smaller ones learn from the
soft outputs of a teacher: the largest subnet of the same step (in-place distillation), the largest
as it was when the first phase ended, or the published network that training started from.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from ofa.errors import UserError
from ofa.space import Space

__all__ = ["RECIPES", "Phase", "Recipe", "get_recipe"]

Values = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Phase:
    """A share of the steps, the part of the space that it trains, and what one step holds.

    share: of all steps. kernels, depths, expands, resolutions: see ``Space.restrict``; None = all,
    () = only each stage's largest.
    largest, smallest: probability that a step holds the largest, the smallest subnet; where a step
    holds no smallest one it holds a random one instead. random: number of random subnets.
    largest_resolutions: those of the largest subnet; None = as for the others.
    crop: smallest area of a random crop; near 1, objects look as large as in whole images.
    sort: sort channels by importance when the phase begins (before widths open, once).
    lr: the highest learning rate of a cosine of the phase's own, to zero at its end; None = the
    recipe's, on the cosine over all steps.
    """

    name: str
    share: float
    kernels: Values = None
    depths: Values = None
    expands: Values = None
    resolutions: Values = None
    largest_resolutions: Values = None
    largest: float = 1.0
    smallest: float = 1.0
    random: int = 2
    crop: float = 0.35
    sort: bool = False
    lr: float | None = None

    def restrict(self, space: Space) -> Space:
        """The part of ``space`` that this phase trains."""
        return space.restrict(
            kernels=self.kernels,
            depths=self.depths,
            expands=self.expands,
            resolutions=self.resolutions,
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a supernet is trained: warm-up in each phase, cosine to zero over all steps.

    optimizer: AdamW, or SGD with Nesterov's momentum. batch: images of a step, of each process.
    teacher: ``largest`` (in-place distillation), ``frozen`` (the largest subnet as the first phase
    leaves it, normalized by the batch, at the student's resolution), ``pretrained`` (the frozen
    published network, at ``teacher_resolution``) or ``checkpoint`` (another supernet's best subnet,
    which has seen each image once: ``ofa.teacher.taught``). distill: by cross-entropy to the
    teacher's soft output, or by the adaptive alpha-divergence from it
    (``ofa.train.adaptive_alpha``); a checkpoint's by the divergence from it at ``temperature``.
    hard: weight of the true label in the target; the teacher's soft output has the rest.
    smoothing: of the labels that the largest subnet learns from, where it is the teacher.
    dark: weight of the distillation over the published network's own classes
    (at ``temperature`` too), which keeps what it knows beyond the classes of the data.
    moved_back: share of the way to the published weights that the start is moved back; what the
    smaller subnets lose by it they learn again.
    jitter: largest relative change of brightness and contrast. sharpen: probability that an image
    is sharpened; images that are smaller than the network's input look blurred to it, which those
    of a camera will not. clip: largest norm of the gradient.
    ema: decay of a moving average of the weights, which is then what is evaluated and handed over
    (0 = none); it begins anew with each phase. bf16: multiply in bfloat16 where the processor has
    it. hours, subnets: to train and to evaluate where the user says nothing.
    """

    name: str
    phases: tuple[Phase, ...]
    teacher: Literal["largest", "frozen", "pretrained", "checkpoint"]
    teacher_resolution: int = 192
    optimizer: Literal["adamw", "sgd"] = "adamw"
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 100
    clip: float = 5.0
    distill: Literal["soft", "alpha"] = "soft"
    hard: float = 0.1
    smoothing: float = 0.1
    dark: float = 0.0
    temperature: float = 2.0
    moved_back: float = 0.0
    jitter: float = 0.2
    sharpen: float = 0.0
    ema: float = 0.0
    bf16: bool = False
    hours: float = 2.0
    subnets: int = 250

    def __post_init__(self) -> None:
        if abs(sum(phase.share for phase in self.phases) - 1) > 1e-9:
            raise ValueError("the shares of the phases must sum to 1")

    def of_space(self, space: Space) -> Self:
        """The same with the largest subnet at those of its resolutions that ``space`` has.

        At all of the phase's where it has none of them.
        """

        def own(phase: Phase) -> Phase:
            has = tuple(r for r in phase.largest_resolutions or () if r in space.resolutions)
            return replace(phase, largest_resolutions=has or None)

        return replace(self, phases=tuple(map(own, self.phases)))

    def phase_ends(self, steps: int) -> tuple[int, ...]:
        """The step at which each phase ends."""
        total, ends = 0.0, []
        for phase in self.phases:
            total += phase.share
            ends.append(round(total * steps))
        return tuple(ends)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the card."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """The recipe of plain values; fields that an older version did not have are as by default.

        Raises TypeError where there is a field that this version does not know.
        """
        phases = tuple(Phase(**phase) for phase in values["phases"])
        return cls(**{**values, "phases": phases})


_LOW = (96, 112, 128, 144, 160)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # From published weights. The network that they came from stays the teacher, so the
        # largest subnet, which costs most and has least to learn, is seldom in a step.
        Recipe(
            name="pretrained",
            teacher="pretrained",
            dark=1.0,
            phases=(
                Phase(
                    "kernel and depth",
                    share=0.06,
                    depths=(2, 3, 4),
                    expands=(),
                    resolutions=_LOW,
                    largest=0.15,
                    smallest=0.0,
                    random=1,
                ),
                Phase(
                    "width",
                    share=0.76,
                    resolutions=_LOW,
                    largest_resolutions=(160, 192, 224),
                    largest=0.12,
                    smallest=0.4,
                    random=1,
                    sort=True,
                ),
                Phase(
                    "high resolution",
                    share=0.18,
                    resolutions=(96, 112, 128, 144, 160, 176, 192),
                    largest_resolutions=(192, 224),
                    largest=0.3,
                    smallest=0.25,
                    random=1,
                ),
            ),
        ),
        # On from a supernet that ``pretrained`` made: nothing is left to open or to sort. It begins
        # a little nearer to the published network, the teacher sees more pixels, the largest
        # subnet has its share of steps, and the last phase shows nearly whole images at every
        # resolution, as in use.
        Recipe(
            name="refine",
            teacher="pretrained",
            teacher_resolution=224,
            lr=5e-4,
            hard=0.2,
            dark=1.0,
            moved_back=0.2,
            sharpen=0.3,
            phases=(
                Phase(
                    "all",
                    share=0.5,
                    resolutions=_LOW,
                    largest_resolutions=(192, 224),
                    largest=0.3,
                    smallest=0.4,
                    random=1,
                    crop=0.5,
                ),
                Phase(
                    "whole images",
                    share=0.5,
                    largest_resolutions=(192, 224),
                    largest=0.5,
                    smallest=0.35,
                    random=1,
                    crop=0.7,
                ),
            ),
        ),
        # To other classes than those of a supernet that ``pretrained`` and ``refine`` made. Little
        # is to be learned beside the classifier, and from few images little can.
        Recipe(
            name="adapt",
            teacher="pretrained",
            lr=2e-4,
            hard=0.3,
            dark=1.0,
            sharpen=0.3,
            warmup=20,
            hours=0.1,
            subnets=60,
            phases=(
                Phase(
                    "all",
                    share=1.0,
                    largest_resolutions=(160, 192, 224),
                    largest=0.3,
                    smallest=0.4,
                    random=1,
                    crop=0.5,
                ),
            ),
        ),
        # From nothing: the largest subnet learns first and teaches the others ever after.
        Recipe(
            name="scratch",
            teacher="largest",
            lr=2e-3,
            hard=0.0,
            phases=(
                Phase("largest", share=0.3, depths=(), kernels=(), expands=(), random=0),
                Phase("kernel", share=0.1, depths=(), expands=(), random=1),
                Phase("depth", share=0.2, expands=(), random=1),
                Phase("width", share=0.4, random=1, sort=True),
            ),
        ),
        # From nothing as Cai et al. 2020 did it: epochs as in their code (180, 125, 25, 125, 25,
        # 125), their learning rates of a batch of 64, their number of subnets a step. Their loss is
        # the sum of a soft and a hard one, ours the mean of both: rates after the first are
        # doubled. Channels are sorted once: a second time would undo the widths trained since.
        Recipe(
            name="shrink",
            teacher="frozen",
            optimizer="sgd",
            batch=64,
            lr=0.08,
            weight_decay=3e-5,
            hard=0.5,
            phases=(
                Phase("largest", 180 / 605, (), (), (), random=0, smallest=0.0, lr=0.08),
                Phase(
                    "kernel", 125 / 605, None, (), (), largest=0.0, smallest=0.0, random=1, lr=0.06
                ),
                Phase(
                    "depth, two", 25 / 605, None, (3, 4), (), largest=0.0, smallest=0.0, lr=0.005
                ),
                Phase("depth", 125 / 605, None, None, (), largest=0.0, smallest=0.0, lr=0.015),
                Phase(
                    "width, two",
                    share=25 / 605,
                    expands=(4, 6),
                    largest=0.0,
                    smallest=0.0,
                    random=4,
                    sort=True,
                    lr=0.005,
                ),
                Phase("width", 125 / 605, largest=0.0, smallest=0.0, random=4, lr=0.015),
            ),
        ),
        # From nothing without phases, as Yu et al. 2020 (BigNAS): the sandwich rule and in-place
        # distillation from the first step on.
        Recipe(
            name="sandwich",
            teacher="largest",
            lr=2e-3,
            hard=0.0,
            phases=(Phase("all", share=1.0),),
        ),
        # As ``scratch``, for networks of a few million MACs and images of the networks' own size,
        # where large batches are cheap and SGD is ahead of AdamW (docs/checkpoint.md). They do not
        # overfit: crops are large, and the last phase shows nearly whole images, as in use.
        Recipe(
            name="tiny",
            teacher="largest",
            optimizer="sgd",
            batch=128,
            lr=0.1,
            weight_decay=5e-4,
            hard=0.4,
            phases=(
                Phase(
                    "largest",
                    share=0.14,
                    depths=(),
                    kernels=(),
                    expands=(),
                    smallest=0.0,
                    random=0,
                    crop=0.5,
                ),
                Phase(
                    "kernel", share=0.05, depths=(), expands=(), smallest=0.0, random=1, crop=0.5
                ),
                Phase("depth", share=0.15, expands=(), random=1, crop=0.5),
                Phase("width", share=0.46, random=1, crop=0.5, sort=True),
                Phase("whole images", share=0.2, random=1, crop=0.75),
            ),
        ),
        # On from a supernet that ``tiny`` made, taught by a larger network of the same classes
        # (``--teacher``). Without the largest subnet, which costs as much as the others together,
        # in each step there are twice the steps.
        Recipe(
            name="tiny-taught",
            teacher="checkpoint",
            optimizer="sgd",
            batch=128,
            lr=0.05,
            weight_decay=1e-4,
            hard=0.3,
            temperature=4.0,
            phases=(
                Phase("all", share=0.7, largest=0.25, smallest=0.4, random=2, crop=0.5),
                Phase("whole images", share=0.3, largest=0.25, smallest=0.4, random=2, crop=0.75),
            ),
        ),
        # On from a supernet that ``tiny`` made. Not even the largest subnet fits the images that it
        # is trained on: views are nearer to whole images.
        Recipe(
            name="tiny-refine",
            teacher="largest",
            optimizer="sgd",
            batch=128,
            lr=0.05,
            weight_decay=5e-4,
            hard=0.4,
            jitter=0.1,
            phases=(
                Phase("all", share=0.7, random=1, crop=0.65),
                Phase("whole images", share=0.3, random=1, crop=0.85),
            ),
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises UserError."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name.lower(), RECIPES, n=1)
    raise UserError(
        f"unknown recipe {name!r} (--recipe)",
        fix=f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}",
    )
