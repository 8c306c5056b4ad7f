"""Proxy quality: how well cheap trainings rank networks.

A search compares networks by one training each, and by less than a full one. Two numbers say what
that is worth: how much the accuracy of one network varies with the seed, and the rank correlation
of cheap and full trainings (Spearman's rho; 1: the same order, 0: unrelated).
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

from keras_inception.bounded import read_json
from keras_inception.data.splits import ImageData
from keras_inception.files import write_text
from keras_inception.spec.validation import from_fields, require_tuple, tuple_of, unexpected
from tuning.candidate import at_resolution, hold_out, subset, train_candidate
from tuning.plan import PROXY_QUALITY_FILE, SearchPlan
from tuning.space import Value

SEEDS = 3
OnResult = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class ProxyQuality:
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

    def __post_init__(self) -> None:
        for label in ("noise", "spread", "rank_correlation"):
            if not isinstance(getattr(self, label), int | float):  # may be NaN, of equal accuracies
                raise unexpected(self, label, "a number")
        for label in ("cheap", "full", "seeds"):
            require_tuple(self, label, int, float)

    def save(self, folder: Path) -> None:
        """Write proxy_quality.json into a search's folder."""
        write_text(folder / PROXY_QUALITY_FILE, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ProxyQuality | None:
        """Read what `save` wrote; None: it was not measured."""
        file = folder / PROXY_QUALITY_FILE
        if not file.exists():
            return None
        try:
            data = read_json(file, "proxy quality")
            return from_fields(cls, data, cheap=tuple_of(), full=tuple_of(), seeds=tuple_of())
        except ValueError as error:
            raise ValueError(f"{error} In {str(file)!r}.") from error


def proxy_quality(
    cheap: Sequence[float], full: Sequence[float], seeds: Sequence[float]
) -> ProxyQuality:
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
    return ProxyQuality(
        noise=statistics.stdev(seeds),
        spread=statistics.stdev(cheap),
        rank_correlation=float(scipy.stats.spearmanr(cheap, full).statistic),
        cheap=tuple(cheap),
        full=tuple(full),
        seeds=tuple(seeds),
    )


def measure_proxy_quality(
    plan: SearchPlan,
    data: ImageData,
    *,
    networks: int,
    strategy: tf.distribute.Strategy | None = None,
    on_result: OnResult = lambda name, accuracy: None,
) -> ProxyQuality:
    """Train networks of a plan's space cheaply and in full, and the neutral one with more seeds.

    Args:
        plan: its first round, resolution and data fraction are the proxy.
        data: as for `search`.
        networks: how many, the neutral one and random ones; 2 or more.
        strategy: as for `search`.
        on_result: called after each training with its description and its accuracy.

    Raises:
        ValueError: fewer than two networks.
        TrainingDivergedError, TrainingInterruptedError: as `train_candidate`.
    """
    if networks < 2:
        raise ValueError(f"Expected two networks or more. Received: networks={networks!r}")
    draw = random.Random(plan.seed)
    points: list[dict[str, Value]] = [{}]
    points += [plan.space.random_point(draw) for _ in range(networks - 1)]
    trainer = _Trainer(plan, data, strategy, on_result)
    seed = plan.recipe.seed
    pairs = [
        (trainer.cheap(f"network {number}, cheap", point, seed), trainer.full(number, point))
        for number, point in enumerate(points)
    ]
    cheap, full = zip(*pairs, strict=True)
    more = [
        trainer.cheap(f"network 0, cheap, seed {other}", {}, other)
        for other in range(seed + 1, seed + SEEDS)
    ]
    return proxy_quality(cheap, full, [cheap[0], *more])


class _Trainer:
    """Trains points of a plan's space, by its proxy or in full."""

    def __init__(
        self,
        plan: SearchPlan,
        data: ImageData,
        strategy: tf.distribute.Strategy | None,
        on_result: OnResult,
    ) -> None:
        self._plan = plan
        self._data = hold_out(data, plan.validation_share, plan.seed)
        self._cheap_data = subset(self._data, plan.data_fraction, plan.seed)
        self._strategy = strategy
        self._on_result = on_result

    def cheap(self, name: str, point: dict[str, Value], seed: int) -> float:
        """The accuracy by the proxy."""
        spec = at_resolution(self._plan.space.spec(point), self._plan.resolution)
        recipe = replace(self._plan.recipe, seed=seed)
        result = train_candidate(
            spec,
            self._cheap_data,
            recipe,
            epochs=self._plan.first_epochs,
            strategy=self._strategy,
        )
        self._on_result(name, result.accuracy)
        return result.accuracy

    def full(self, number: int, point: dict[str, Value]) -> float:
        """The accuracy after a full training."""
        recipe = self._plan.recipe
        result = train_candidate(
            self._plan.space.spec(point),
            self._data,
            recipe,
            epochs=recipe.epochs,
            strategy=self._strategy,
        )
        self._on_result(f"network {number}, full", result.accuracy)
        return result.accuracy
