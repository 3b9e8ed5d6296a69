"""What a supernet's subnets are worth against the same architectures trained alone.

    python -m tests.bench.bench_contract CIFAR_TRAIN.zip FOLDER [--jobs 2] [--publish]

CIFAR_TRAIN.zip holds the training images of CIFAR-10 as class/name.jpg. Each training is a piece of
work with its own folder in FOLDER: a run that was killed goes on where it was, and one whose pieces
are finished only records. About three hours of CPU. --publish records what is finished
and trains nothing. --steps makes the trainings shorter, to try the script; nothing is recorded.

Axes: A architectures, N held-out images, B resamples.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t
from torch import Tensor

from ofa.data import Splits, to_tensor
from ofa.elastic import run as run_layers
from ofa.evaluate import Evaluator, recalibrate, recalibration_part
from ofa.images import open_images, split
from ofa.layers import lower, macs
from ofa.recipe import RECIPES, Phase
from ofa.sampling import Sampler, spread
from ofa.space import Arch
from ofa.spaces import get_space
from ofa.supernet import Subnet, initial
from ofa.table import tabulate
from ofa.train import SAVE_EVERY, Progress, Run
from ofa.weights import RECALIBRATION_BATCH, Statistics, cut
from tests.bench.record import record, table

FloatArray = NDArray[np.float64]

SIDE = 32
SPACE = replace(get_space("mcu").restrict(resolutions=(SIDE,), depths=(1, 2)), classes=10)
HELD_OUT = 5_000
STEPS = 1_800
SEEDS = (0, 1, 2)
BAND = 8  # architectures within 10 % of the same MACs
SPREAD = 8  # and the ends with others between them
ALLOWED = {"smallest": 0.5, "largest": 1.0}  # points below the same architecture alone
PROBES = 20
RESAMPLES = 2_000

# Half the batch and the learning rate of ``tiny``: where there are few epochs, steps are worth
# more. One crop for all, so that recipes differ in their phases alone.
_CROP = 0.75
_TINY = replace(RECIPES["tiny"], batch=64, lr=0.05)
SANDWICH = replace(_TINY, name="sandwich", phases=(Phase("all", 1.0, random=1, crop=_CROP),))
SHRINK = replace(
    _TINY, name="shrink", phases=tuple(replace(phase, crop=_CROP) for phase in _TINY.phases)
)

INFINITE_AT, LARGE_AT, COLLAPSE_STEPS = 150, 250, 400


@dataclass(frozen=True, slots=True)
class Piece:
    """One training. subnet: what is trained alone, or "" for a supernet."""

    kind: str
    seed: int
    subnet: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.kind, self.subnet, str(self.seed))))


#: The most needed first.
PIECES = (
    Piece("sandwich", 0),
    *(Piece("alone", 0, subnet) for subnet in ("largest", "smallest")),
    *(Piece("alone", 0, f"band{a}") for a in range(BAND)),
    Piece("shrink", 0),
    Piece("collapse", 0),
    Piece("undisturbed", 0),
    *(Piece(kind, seed) for seed in SEEDS[1:] for kind in ("sandwich", "shrink")),
    *(Piece("alone", seed, subnet) for seed in SEEDS[1:] for subnet in ("largest", "smallest")),
    *(Piece("alone", 1, f"band{a}") for a in range(BAND)),
)


def main() -> None:
    """Train what is missing, and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--piece", choices=[piece.name for piece in PIECES], help="only this one")
    options = parser.parse_args()
    data, folder, steps = options.data, options.folder, options.steps
    torch.set_num_threads(1)
    if options.piece:
        piece = next(piece for piece in PIECES if piece.name == options.piece)
        train(piece, splits_of(data), folder, steps)
        return
    missing = [p for p in PIECES if not (folder / p.name / "result.json").exists()]
    if missing and not options.publish:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "speed.json").exists():
            write(folder / "speed.json", speeds(splits_of(data), folder))
        command = [sys.executable, "-m", "tests.bench.bench_contract", data, folder]
        command += ["--steps", str(steps), "--piece"]

        def work(piece: Piece) -> None:
            subprocess.run([*command, piece.name], check=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(work, missing))
    markdown = Results(folder).markdown()
    if steps == STEPS:
        record("contract", markdown, ("scipy",))
    else:
        sys.stdout.write(f"{markdown}\n")


# -- the pieces ---------------------------------------------------------------------------------


def splits_of(data: Path) -> Splits:
    """The images, of which some are held out."""
    return Splits(*split(open_images(data)["train"], HELD_OUT, 0), None, ())


def architectures() -> dict[str, Arch]:
    """The ends, those of the band, and others spread over MACs."""
    ends = {"smallest": SPACE.smallest(), "largest": SPACE.largest()}
    others = spread(SPACE, SPREAD, np.random.default_rng(0))
    between = [arch for arch in others if arch not in ends.values()]
    return (
        ends
        | {f"band{a}": arch for a, arch in enumerate(band())}
        | {f"spread{a}": arch for a, arch in enumerate(between)}
    )


def band() -> list[Arch]:
    """Architectures within 10 % of the geometric mean of the ends' MACs, far from each other.

    Each is the one, of random ones, that differs most from its nearest of those before it in
    number of blocks, share of large kernels and mean expand ratio.
    """
    ends = [macs(lower(SPACE, arch)) for arch in (SPACE.smallest(), SPACE.largest())]
    genotypes = SPACE.sample(np.random.default_rng(0), 5_000)
    costs = tabulate(SPACE, lambda layer: layer.macs).price(genotypes)
    inside = abs(costs / np.sqrt(ends[0] * ends[1]) - 1) <= 0.1
    archs = [SPACE.decode(genotype) for genotype in genotypes[inside]]
    blocks = [[block for stage in arch.stages[1:] for block in stage] for arch in archs]
    traits = np.array(
        [[len(own), mean(b.kernel for b in own), mean(b.expand for b in own)] for own in blocks]
    )
    traits = (traits - traits.mean(0)) / traits.std(0)
    chosen = [int((traits**2).sum(1).argmin())]
    while len(chosen) < BAND:
        distance = ((traits[:, None] - traits[chosen]) ** 2).sum(2).min(1)
        chosen.append(int(distance.argmax()))
    return [archs[a] for a in chosen]


def speeds(splits: Splits, folder: Path) -> dict[str, float]:
    """CPU seconds of a step of either recipe, its phases weighted by their shares; in turns."""
    taken: dict[str, list[float]] = {"sandwich": [], "shrink": []}
    for _ in range(3):
        for recipe in (SANDWICH, SHRINK):
            run = Run(SPACE, recipe, splits, initial(SPACE), None, folder)
            began = time.process_time()
            run.seconds_per_step(PROBES)
            taken[recipe.name].append((time.process_time() - began) / PROBES)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def train(piece: Piece, splits: Splits, folder: Path, steps: int) -> None:
    """Train a piece, or go on, and write what it reaches."""
    own = folder / piece.name
    own.mkdir(exist_ok=True)
    archs = architectures()
    speed = json.loads((folder / "speed.json").read_text())
    recipe = SHRINK if piece.kind == "shrink" else SANDWICH
    planned = steps * speed["sandwich"]
    if piece.kind == "shrink":
        steps = round(planned / speed["shrink"])
    if piece.kind in ("collapse", "undisturbed"):
        steps = min(steps, COLLAPSE_STEPS)
    start, seed = initial(SPACE, piece.seed), piece.seed
    run = Run(SPACE, recipe, splits, start, None, own, seed=seed, only=archs.get(piece.subnet))
    if (own / "state.pt").exists():
        run.resume()
    cpu = follow(run, steps, spoil=piece.kind == "collapse")
    judge = Judge(splits)
    shown = archs
    if piece.kind in ("collapse", "undisturbed"):
        shown = {name: archs[name] for name in ALLOWED}
    elif piece.subnet:
        shown = {piece.subnet: archs[piece.subnet]}
    answers = judge.answers(run, shown, ablation=piece.kind == "sandwich")
    with (own / "answers.npz").open("wb") as file:
        np.savez_compressed(file, **answers)  # type: ignore[arg-type]
    notes = (own / "notes.txt").read_text().splitlines() if (own / "notes.txt").exists() else []
    result = {
        "steps": steps,
        "images": len(splits.train),
        "planned_cpu_seconds": planned,
        "cpu_seconds": cpu,
        "seconds": run.seconds,
        "loss": run.loss,
        "notes": list(dict.fromkeys(notes)),
        "archs": {name: str(arch) for name, arch in shown.items()},
        "macs": {name: macs(lower(SPACE, arch)) for name, arch in shown.items()},
    }
    write(own / "result.json", result)


def follow(run: Run, steps: int, spoil: bool) -> float:
    """Train to the end; CPU seconds of it, over all starts. What the guard says goes to a file.

    spoil: makes weights infinite at one step, and others large at a later one.
    """
    used = run.folder / "cpu.json"
    before = json.loads(used.read_text()) if run.step else 0.0
    began = time.process_time()

    def tell(progress: Progress) -> None:
        if progress.note:
            with (run.folder / "notes.txt").open("a") as file:
                file.write(f"{progress.note}\n")
        if progress.step % SAVE_EVERY == 0 or progress.step == progress.steps:
            write(used, before + time.process_time() - began)
        if spoil:
            with torch.no_grad():
                if progress.step == INFINITE_AT and run.rollbacks == 0:
                    run.model.shared["head.weight"].fill_(torch.inf)
                if progress.step == LARGE_AT and run.rollbacks == 1:
                    run.model.shared["classifier.weight"].mul_(1_000)

    run.train(steps, tell)
    seconds: float = json.loads(used.read_text())
    return seconds


class Judge:
    """Which of the held-out images a subnet gets right."""

    def __init__(self, splits: Splits) -> None:
        self.few = recalibration_part(SPACE, splits.train)
        self.evaluator = Evaluator(self.few, splits.held_out)
        self.labels = torch.from_numpy(splits.held_out.labels)
        self.x = to_tensor(splits.held_out.pixels(SIDE))

    def answers(
        self, run: Run, archs: Mapping[str, Arch], ablation: bool
    ) -> dict[str, NDArray[np.bool_]]:
        """Way of recalibration and name -> (N,) right or wrong."""
        shared = run.weights
        result = {
            f"own {name}": self.right(self.evaluator.subnet(SPACE, arch, shared))
            for name, arch in archs.items()
        }
        if not ablation:
            return result
        arrays = run.model.numpy()
        compared = {name: arch for name, arch in archs.items() if not name.startswith("spread")}
        others = {
            "shared": self.shared_statistics(shared),
            "largest": recalibrate(SPACE, SPACE.largest(), shared, self.batches()),
        }
        for way, statistics in others.items():
            for name, arch in compared.items():
                sliced = {
                    layer.name: (
                        statistics[layer.name][0][: layer.out_shape[2]],
                        statistics[layer.name][1][: layer.out_shape[2]],
                    )
                    for layer in lower(SPACE, arch)
                    if layer.has_batch_norm
                }
                result[f"{way} {name}"] = self.right(Subnet.of(SPACE, arch, arrays, sliced))
        return result

    @torch.no_grad()
    def right(self, subnet: Subnet) -> NDArray[np.bool_]:
        guesses = torch.cat([subnet(x).argmax(1) for x in self.x.split(250)])
        return (guesses == self.labels).numpy()

    def batches(self) -> Iterator[Tensor]:
        return iter(to_tensor(self.few.interleaved().pixels(SIDE)).split(RECALIBRATION_BATCH))

    @torch.no_grad()
    def shared_statistics(self, shared: Mapping[str, Tensor]) -> Statistics:
        """Of each channel the mean over the subnets of sandwich steps that have it.

        What batch norms with running statistics, shared as the weights are, would hold.
        """
        rng, sampler = np.random.default_rng(0), Sampler(SPACE)
        sums: dict[str, FloatArray] = {}
        for x in self.batches():
            for arch in (SPACE.largest(), SPACE.smallest(), sampler.draw(rng, SIDE)):
                found: dict[str, tuple[Tensor, Tensor]] = {}
                layers = lower(SPACE, arch)
                run_layers(layers, lambda layer: cut(layer, shared), x, SPACE.bn_eps, found)
                for name, (centre, variance) in found.items():
                    total = sums.setdefault(name, np.zeros((3, len(shared[f"{name}.bn.weight"]))))
                    own = torch.stack([centre, variance, torch.ones_like(centre)])
                    total[:, : len(centre)] += own.numpy()
        return {
            name: (
                (centre / count).astype(np.float32),
                (variance / count).astype(np.float32),
            )
            for name, (centre, variance, count) in sums.items()
        }


def write(path: Path, value: Any) -> None:
    """JSON; the old file stays until the new one is whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1))
    partial.replace(path)


# -- what they say ------------------------------------------------------------------------------


class Results:
    """The finished pieces of a folder."""

    def __init__(self, folder: Path) -> None:
        self.done: dict[Piece, dict[str, Any]] = {}
        self.right: dict[Piece, dict[str, FloatArray]] = {}
        for piece in PIECES:
            path = folder / piece.name / "result.json"
            if path.exists():
                self.done[piece] = json.loads(path.read_text())
                with np.load(folder / piece.name / "answers.npz") as file:
                    self.right[piece] = {name: file[name].astype(float) for name in file.files}
        self.archs: dict[str, str] = {}
        self.macs: dict[str, int] = {}
        for result in self.done.values():
            self.archs |= result["archs"]
            self.macs |= result["macs"]
        self.band = [name for name in self.archs if name.startswith("band")]

    def markdown(self) -> str:
        """All tables of which there is something to say."""
        parts = [self.heading(), self.contract(), self.ranking(), self.recalibration()]
        return "\n\n".join(filter(None, [*parts, self.recipes(), self.collapse()]))

    def heading(self) -> str:
        first = next(iter(self.done.values()))
        hours = sum(result["cpu_seconds"] for result in self.done.values()) / 3600
        smallest, largest = (macs(lower(SPACE, a)) for a in (SPACE.smallest(), SPACE.largest()))
        return (
            "## A supernet's subnets against networks trained alone\n\n"
            f"Space: `mcu` at {SIDE} pixels with at most two blocks a stage, {smallest / 1e6:.2f} "
            f"to {largest / 1e6:.2f} MMACs. Data: CIFAR-10, {first['images']:,} training images; "
            f"accuracy: the {HELD_OUT:,} held out of them, once, after training. "
            f"{first['steps']:,} steps of {SANDWICH.batch} images "
            f"({first['steps'] * SANDWICH.batch / first['images']:.1f} epochs) for a supernet and "
            "for each architecture alone, with the same images, crops and rates (SGD, "
            f"{SANDWICH.lr:g}, cosine). Alone: the same code trains one architecture from the same "
            "start, from hard labels. Supernet: the sandwich rule, in-place distillation; largest, "
            "smallest and one random subnet a step. Subnets are recalibrated as the product does. "
            "No network has converged after so few epochs: what is compared is equal training. "
            f"{len(self.done)} of {len(PIECES)} trainings are finished, {hours:.1f} hours of CPU."
        )

    def pairs(self, subnet: str) -> list[tuple[int, FloatArray, FloatArray]]:
        """Seed, and (N,) right of the supernet's and of the one alone, where both are there."""
        found = []
        for seed in SEEDS:
            supernet, alone = Piece("sandwich", seed), Piece("alone", seed, subnet)
            if supernet in self.done and alone in self.done:
                own = f"own {subnet}"
                found.append((seed, self.right[supernet][own], self.right[alone][own]))
        return found

    def contract(self) -> str:
        rows: list[list[object]] = []
        for subnet, allowed in ALLOWED.items():
            pairs = self.pairs(subnet)
            gaps = [100 * float((ours - alone).mean()) for _, ours, alone in pairs]
            for (seed, ours, alone), gap in zip(pairs, gaps, strict=True):
                half = 196 * float((ours - alone).std()) / len(ours) ** 0.5
                rows.append([
                    subnet, seed, f"{100 * ours.mean():.1f}", f"{100 * alone.mean():.1f}",
                    f"{gap:+.1f} ({gap - half:+.1f} to {gap + half:+.1f})", f"-{allowed:g}", "",
                ])  # fmt: skip
            if pairs:
                rows.append([
                    subnet, "mean", f"{100 * mean(float(p[1].mean()) for p in pairs):.1f}",
                    f"{100 * mean(float(p[2].mean()) for p in pairs):.1f}", over_seeds(gaps),
                    f"-{allowed:g}", "yes" if mean(gaps) >= -allowed else "**missed**",
                ])  # fmt: skip
        header = ["subnet", "seed", "supernet, %", "alone, %", "gap, points", "allowed", "kept"]
        return (
            f"### The ends\n\n{table(header, rows)}\n\n"
            "Intervals of 95 %: of a seed over the held-out images, paired; of the mean over the "
            "seeds (Student's t). The mean is judged."
        )

    def ranking(self) -> str:
        """The architectures of one band, and Kendall's tau of who ranks them."""
        alone = {
            seed: np.array([self.right[piece][f"own {name}"] for name, piece in pieces.items()])
            for seed in SEEDS[:2]
            if (pieces := {name: Piece("alone", seed, name) for name in self.band})
            and all(piece in self.done for piece in pieces.values())
        }
        if not alone:
            return ""
        truth = np.mean(list(alone.values()), axis=0)
        costs = np.array([[self.macs[name]] for name in self.band], float)
        supernets = {
            piece: np.array([self.right[piece][f"own {name}"] for name in self.band])
            for piece in self.done
            if piece.kind in ("sandwich", "shrink")
        }
        ours = [right for piece, right in supernets.items() if piece.kind == "sandwich"]
        rankings = {
            f"{piece.kind}, seed {piece.seed}": supernets[piece]
            for piece in sorted(supernets, key=lambda piece: piece.name)
        }
        rankings |= {f"sandwich, mean of {len(ours)} seeds": np.mean(ours, axis=0)}
        rankings |= {"MACs": costs}
        rows = [[name, *tau_cells(right, truth)] for name, right in rankings.items()]
        if len(alone) > 1:
            rows.append(["alone, seed 0 against seed 1", *tau_cells(alone[0], alone[1])])
        resampled = [resample(ranking, truth) for ranking in (np.mean(ours, axis=0), costs)]
        difference = resampled[0] - resampled[1]
        low, high = np.quantile(difference, (0.025, 0.975))
        kept = tau(np.mean(ours, axis=0).mean(1), truth.mean(1)) > tau(costs[:, 0], truth.mean(1))
        archs = table(
            ["architecture", "MMACs", "supernet, %", *(f"alone, seed {s}, %" for s in alone)],
            [
                [
                    f"`{self.archs[name]}`",
                    f"{self.macs[name] / 1e6:.2f}",
                    f"{100 * np.mean([right[a].mean() for right in ours]):.1f}",
                    *(f"{100 * right[a].mean():.1f}" for right in alone.values()),
                ]
                for a, name in enumerate(self.band)
            ],
        )
        return (
            f"### Ranking within one band of MACs\n\n{BAND} architectures within 10 % of the same "
            "MACs, drawn far apart in depth, kernels and widths. Supernet: mean of the sandwich's "
            f"seeds.\n\n{archs}\n\nKendall's tau against training alone (mean of its seeds):\n\n"
            f"{table(['ranked by', 'tau', '95 % interval'], rows)}\n\n"
            f"Intervals: {RESAMPLES:,} bootstrap resamples of architectures and held-out images "
            "together; an architecture is not compared with its copy. The supernet's tau is "
            f"{'above' if kept else 'not above'} that of MACs "
            f"({'kept' if kept else '**missed**'}), by {difference.mean():+.2f} ({low:+.2f} to "
            f"{high:+.2f}) in the mean of the resamples."
        )

    def recalibration(self) -> str:
        pieces = [piece for piece in self.done if piece.kind == "sandwich"]
        if not pieces:
            return ""

        def accuracy(way: str, names: Sequence[str]) -> str:
            found = [self.right[p][f"{way} {name}"].mean() for p in pieces for name in names]
            return f"{100 * float(np.mean(found)):.1f}"

        groups = {name: [name] for name in ALLOWED} | {f"the {BAND} of the band": self.band}
        rows = [
            [group, *(accuracy(way, names) for way in ("own", "shared", "largest"))]
            for group, names in groups.items()
        ]
        header = ["subnet", "recalibrated, %", "shared statistics, %", "the largest's, %"]
        return (
            "### Without recalibration\n\nThe same weights (sandwich, mean of "
            f"{len(pieces)} seeds) with statistics that are not the subnet's own. Shared: of each "
            "channel the mean over the subnets of sandwich steps that have it, as running "
            "statistics shared like the weights would hold. The largest's: cut to the subnet's "
            f"widths.\n\n{table(header, rows)}"
        )

    def recipes(self) -> str:
        """Shrink against sandwich, which have as much CPU time."""
        rows: list[list[object]] = []
        reached: dict[str, dict[int, list[float]]] = {"sandwich": {}, "shrink": {}}
        for piece, result in self.done.items():
            if piece.kind not in reached:
                continue
            every = [
                100 * float(right.mean())
                for name, right in self.right[piece].items()
                if name.startswith("own ")
            ]
            ends = [100 * float(self.right[piece][f"own {name}"].mean()) for name in ALLOWED]
            reached[piece.kind][piece.seed] = [*ends, mean(every)]
            rows.append([
                piece.kind, piece.seed, result["steps"], f"{result['planned_cpu_seconds']:.0f}",
                f"{result['cpu_seconds']:.0f}", f"{result['seconds']:.0f}",
                *(f"{value:.1f}" for value in reached[piece.kind][piece.seed]),
            ])  # fmt: skip
        both = sorted(set(reached["sandwich"]) & set(reached["shrink"]))
        if not both:
            return ""
        differences = np.array([
            np.subtract(reached["shrink"][seed], reached["sandwich"][seed]) for seed in both
        ])  # fmt: skip
        last = [over_seeds(list(column)) for column in differences.T]
        rows.append(["shrink - sandwich", f"mean of {len(both)}", "", "", "", "", *last])
        header = ["recipe", "seed", "steps", "planned CPU, s", "CPU, s", "wall, s"]
        header += ["smallest, %", "largest, %", f"mean of {len(every)} subnets, %"]
        return (
            "### Shrink against sandwich at equal time\n\nShrink: the phases of `tiny` (largest, "
            "kernel, depth, width), the largest subnet of the step as teacher. The steps of shrink "
            "are those that take as much CPU time as the sandwich's, by seconds a step measured "
            "before, in turns. CPU is the time to compare: the machine is shared.\n\n"
            f"{table(header, rows)}\n\nLast row: points, 95 % interval over the seeds (Student's "
            "t)."
        )

    def collapse(self) -> str:
        spoilt, plain = Piece("collapse", 0), Piece("undisturbed", 0)
        if not {spoilt, plain} <= self.done.keys():
            return ""
        rows = [
            [
                name,
                f"{self.done[piece]['loss']:.2f}",
                *(f"{100 * self.right[piece][f'own {subnet}'].mean():.1f}" for subnet in ALLOWED),
            ]
            for name, piece in (("collapsed twice", spoilt), ("undisturbed", plain))
        ]
        notes = "\n".join(f"- {note}" for note in self.done[spoilt]["notes"])
        header = ["run", "smoothed loss at the end", *(f"{name}, %" for name in ALLOWED)]
        return (
            f"### An injected collapse\n\nA sandwich of {self.done[spoilt]['steps']} steps. The "
            f"head's weights are made infinite at step {INFINITE_AT}, and at {LARGE_AT} the "
            "classifier's a thousand times as large, which is finite. The guard said:\n\n"
            f"{notes}\n\n"
            f"{table(header, rows)}"
        )


def over_seeds(values: Sequence[float]) -> str:
    """Mean and its 95 % interval, where there is more than one value."""
    if len(values) < 2:
        return f"{mean(values):+.1f}"
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{mean(values):+.1f} ({mean(values) - half:+.1f} to {mean(values) + half:+.1f})"


def agreement(x: FloatArray, y: FloatArray) -> FloatArray:
    """(..., A, A): 1 where x and y (..., A) order two architectures alike, -1 where not."""
    pairs = [np.sign(v[..., :, None] - v[..., None, :]) for v in (x, y)]
    product: FloatArray = pairs[0] * pairs[1]
    return product


def tau(x: FloatArray, y: FloatArray) -> float:
    """Kendall's tau (tau-a: a tie counts as neither)."""
    return float(agreement(x, y).sum() / (len(x) * (len(x) - 1)))


def resample(x: FloatArray, y: FloatArray) -> FloatArray:
    """(B,) taus of architectures and images drawn anew; the same draws in every call.

    x, y: (A, N) right or wrong, or (A, 1) where images do not matter.
    """
    rng = np.random.default_rng(0)
    archs, images = len(y), y.shape[1]
    counts_BA = rng.multinomial(archs, np.full(archs, 1 / archs), RESAMPLES).astype(float)
    counts_BN = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(float)
    x_BA, y_BA = (
        counts_BN @ right.T if right.shape[1] > 1 else np.tile(right[:, 0], (RESAMPLES, 1))
        for right in (x, y)
    )
    pairs = counts_BA[:, :, None] * counts_BA[:, None, :] * (1 - np.eye(archs))
    taus: FloatArray = (agreement(x_BA, y_BA) * pairs).sum((1, 2)) / pairs.sum((1, 2))
    return taus


def tau_cells(x: FloatArray, y: FloatArray) -> list[str]:
    low, high = np.quantile(resample(x, y), (0.025, 0.975))
    return [f"{tau(x.mean(1), y.mean(1)):.2f}", f"{low:.2f} to {high:.2f}"]


if __name__ == "__main__":
    main()
