"""How far a cheap ranking can be trusted: the noise of one network, and the rank correlation.

A search compares networks by one training each, and by less than a full one. Two numbers say what
that is worth: how much the accuracy of one and the same network moves with the seed, and whether
the cheap accuracies order networks as full trainings do (Spearman's rho; 1 the same order, 0 none).
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import scipy.stats
import tensorflow as tf

from keras_inception.data.splits import ImageData
from keras_inception.files import write_text
from tuning.candidate import at_resolution, hold_out, part_of, train_candidate
from tuning.plan import TRUST_FILE, SearchPlan
from tuning.space import Value

SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What was measured.

    Attributes:
        noise: standard deviation of the cheap accuracy of the neutral network over seeds.
        spread: standard deviation of the cheap accuracy over networks.
        rank_correlation: Spearman's rho between cheap and full accuracies of the networks.
        cheap, full: the accuracies, network by network.
        seeds: the cheap accuracies of the neutral network, seed by seed.
    """

    noise: float
    spread: float
    rank_correlation: float
    cheap: tuple[float, ...]
    full: tuple[float, ...]
    seeds: tuple[float, ...]

    def save(self, folder: Path) -> None:
        """Write trust.json into a search's folder."""
        write_text(folder / TRUST_FILE, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Trust | None:
        """Read what `save` wrote; None: it was not measured."""
        file = folder / TRUST_FILE
        if not file.exists():
            return None
        data = json.loads(file.read_text(encoding="utf-8"))
        for name in ("cheap", "full", "seeds"):
            data[name] = tuple(data[name])
        return cls(**data)


def judge(cheap: Sequence[float], full: Sequence[float], seeds: Sequence[float]) -> Trust:
    """Noise, spread and rank correlation of accuracies.

    Args:
        cheap, full: of the same networks.
        seeds: of one network.

    Raises:
        ValueError: fewer than two networks or two seeds, or lists of different lengths.
    """
    if len(cheap) != len(full) or min(len(cheap), len(seeds)) < 2:
        raise ValueError(
            "Expected two networks or more, both ways, and two seeds or more. Received: "
            f"{len(cheap)} cheap, {len(full)} full, {len(seeds)} seeds"
        )
    return Trust(
        noise=statistics.stdev(seeds),
        spread=statistics.stdev(cheap),
        rank_correlation=float(scipy.stats.spearmanr(cheap, full).statistic),
        cheap=tuple(cheap),
        full=tuple(full),
        seeds=tuple(seeds),
    )


def measure_trust(
    plan: SearchPlan,
    data: ImageData,
    *,
    networks: int,
    strategy: tf.distribute.Strategy | None = None,
    told: Callable[[str, float], None] = lambda name, accuracy: None,
) -> Trust:
    """Train random networks of a plan's space cheaply and in full, and one with several seeds.

    Args:
        plan: its first round, resolution and data fraction are what is cheap.
        data: as for `search`.
        networks: how many, the neutral one and random ones; 2 or more.
        strategy: as for `search`.
        told: called after each training with what it was and its accuracy.

    Raises:
        ValueError: fewer than two networks.
        TrainingDivergedError, TrainingInterruptedError: as `train_candidate`.
    """
    if networks < 2:
        raise ValueError(f"Expected two networks or more. Received: networks={networks!r}")
    held_out = hold_out(data, plan.validation_share, plan.seed)
    part = part_of(held_out, plan.data_fraction, plan.seed)
    epochs = plan.round_epochs[0] if plan.round_epochs else plan.recipe.epochs

    def accuracy(values: dict[str, Value], seed: int, cheap: bool) -> float:
        spec = plan.space.spec(values)
        result = train_candidate(
            at_resolution(spec, plan.resolution) if cheap else spec,
            part if cheap else held_out,
            replace(plan.recipe, seed=seed),
            epochs=epochs if cheap else plan.recipe.epochs,
            strategy=strategy,
        )
        return result.accuracy

    draw = random.Random(plan.seed)
    points: list[dict[str, Value]] = [
        {},
        *(plan.space.random_point(draw) for _ in range(networks - 1)),
    ]
    cheap: list[float] = []
    full: list[float] = []
    for number, values in enumerate(points):
        for accuracies, is_cheap in ((cheap, True), (full, False)):
            accuracies.append(accuracy(values, plan.recipe.seed, is_cheap))
            told(f"network {number}, {'cheap' if is_cheap else 'full'}", accuracies[-1])
    seeds = [cheap[0]]
    for seed in range(plan.recipe.seed + 1, plan.recipe.seed + SEEDS):
        seeds.append(accuracy({}, seed, True))
        told(f"network 0, cheap, seed {seed}", seeds[-1])
    return judge(cheap, full, seeds)
