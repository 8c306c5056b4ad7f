"""Choose how cheaply the trials of a search may train: the cheapest way that still ranks networks.

A sample of networks is trained fully, and again on fewer images and on smaller ones. Each training
keeps its accuracy after every epoch, so that it also stands for trainings of fewer epochs: the
learning rate schedule is the whole recipe's in all of them. A way of training is good enough if the
rank correlation of its accuracies with those of the full trainings is 0.7 or more.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import scipy.stats

from keras_inception.bounded import naming, read_json
from keras_inception.cost.layers import network_cost
from keras_inception.data.splits import ImageData
from keras_inception.files import write_text
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.validation import (
    from_fields,
    is_finite,
    object_of,
    require_integers,
    require_numbers,
    tuple_of,
)
from keras_inception.training.strategy import Strategy
from keras_inception.wording import counted
from tuning.candidate import (
    TrialResult,
    at_resolution,
    hold_out,
    is_curve,
    subset,
    train_candidate,
)
from tuning.plan import FIDELITY_FILE, SearchPlan
from tuning.space import Space

NETWORKS = 12
# Spearman's rho from which cheap trainings rank well enough.
GOOD_CORRELATION = 0.7
# Random networks for each one of the sample.
_DRAWN = 10
# What is tried beside full trainings: shares of the images, and a share of their height and width.
_FRACTIONS = (0.5, 0.25)
_SIZE_SHARE = 0.75
# The numbers of a training that is kept, beside its curve.
_TRAINING = ("seconds", "epoch_seconds")
OnResult = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """A way of training.

    Attributes:
        epochs: complete ones.
        data_fraction: of the training images.
        resolution: height and width in pixels; None: the network's.
        seconds: of one training, in the mean.
        rank_correlation: with full trainings; None: all accuracies are alike.
    """

    epochs: int
    data_fraction: float
    resolution: int | None
    seconds: float
    rank_correlation: float | None

    def __post_init__(self) -> None:
        require_integers(self, "epochs")
        require_numbers(self, "data_fraction")
        require_numbers(self, "seconds", positive=False)
        if self.resolution is not None:
            require_integers(self, "resolution")
        if self.rank_correlation is not None:
            require_numbers(self, "rank_correlation", positive=False)

    def __str__(self) -> str:
        parts = [counted(self.epochs, "epoch")]
        if self.data_fraction < 1:
            parts.append(f"{self.data_fraction:.0%} of the images")
        if self.resolution is not None:
            parts.append(f"{self.resolution} pixels")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class FidelityChoice:
    """What was measured, and what is chosen.

    Attributes:
        chosen: the cheapest way that ranks well enough, or else full trainings.
        full: full trainings.
        measured: all ways, the cheapest first.
        networks: of the sample.
        seconds: that measuring took.
    """

    chosen: Fidelity
    full: Fidelity
    measured: tuple[Fidelity, ...]
    networks: int
    seconds: float

    def __post_init__(self) -> None:
        require_integers(self, "networks")
        require_numbers(self, "seconds", positive=False)

    def applied(self, plan: SearchPlan) -> SearchPlan:
        """The plan with trials of the chosen way."""
        chosen = self.chosen
        return replace(
            plan,
            halving_epochs=(chosen.epochs,) if chosen.epochs < plan.recipe.epochs else (),
            data_fraction=chosen.data_fraction,
            resolution=chosen.resolution,
        )

    def describe(self, trials: int) -> str:
        """What was chosen, and the planned times of so many trials."""
        own, full = self.chosen, self.full
        if own == full or own.rank_correlation is None:
            reason = "no cheaper way ranks networks well enough"
        else:
            reason = f"rank correlation with full trainings {own.rank_correlation:.2f}"
        return (
            f"Trials train for {own} ({reason}; {self.networks} networks, measured in "
            f"{_minutes(self.seconds)}). {counted(trials, 'trial')} would take about "
            f"{_minutes(trials * own.seconds)}, by full trainings "
            f"{_minutes(trials * full.seconds)}."
        )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def stratified_sample(space: Space, count: int, seed: int) -> list[NetworkSpec]:
    """Random networks of a space, one from each of `count` equal parts by parameters.

    All cost about the same multiply-adds; the parameters say where they are spent.
    """
    draw = random.Random(seed)
    networks = [space.spec(space.random_point(draw)) for _ in range(_DRAWN * count)]
    networks.sort(key=lambda spec: network_cost(spec).total.params)
    return [draw.choice(networks[_DRAWN * part : _DRAWN * (part + 1)]) for part in range(count)]


def choose_fidelity(
    plan: SearchPlan,
    data: ImageData,
    folder: Path,
    *,
    networks: int = NETWORKS,
    strategy: Strategy = None,
    on_result: OnResult = lambda name, accuracy: None,
) -> FidelityChoice:
    """Train a sample of networks in several ways, and choose the cheapest that ranks well enough.

    Measuring stops before it has taken as long as the trials would by full trainings; only the full
    trainings of the sample are always completed. Trainings are kept in `folder` as they end, and
    are not repeated.

    Args:
        plan: with the recipe of full trainings, without a cheaper way of its own.
        data: as for `search`.
        folder: of the search.
        networks: of the sample; 4 or more.
        strategy: as for `search`.
        on_result: called after each training with its description and its accuracy.

    Raises:
        ValueError: fewer than four networks, or a plan that is not of full trainings.
        TrainingDivergedError, TrainingInterruptedError: as `train_candidate`.
    """
    if networks < 4 or plan.is_proxy:
        kind = "cheaper" if plan.is_proxy else "full"
        raise ValueError(
            "Expected four networks or more, and a plan of full trainings. Received: "
            f"networks={networks}, a plan of {kind} trainings"
        )
    measuring = _Measuring(plan, data, folder, networks, strategy, on_result)
    *found, full = measuring.measure(plan.recipe.epochs, 1.0, None)
    for fraction, resolution in _cheaper_ways(plan):
        best = _cheapest_good(found, full)
        # More epochs than these would cost more than the best so far.
        epochs = min(plan.recipe.epochs, int(best.epochs * best.data_fraction / fraction))
        if epochs and measuring.seconds < plan.max_trials * full.seconds:
            found += measuring.measure(epochs, fraction, resolution)
    choice = FidelityChoice(
        chosen=_cheapest_good(found, full),
        full=full,
        measured=tuple(sorted([*found, full], key=lambda item: item.seconds)),
        networks=networks,
        seconds=measuring.seconds,
    )
    measuring.save(choice)
    return choice


def _cheapest_good(found: Sequence[Fidelity], full: Fidelity) -> Fidelity:
    good = [item for item in found if (item.rank_correlation or 0.0) >= GOOD_CORRELATION]
    return min([full, *good], key=lambda item: item.seconds)


def load_choice(folder: Path) -> FidelityChoice | None:
    """What `choose_fidelity` chose for the search in a folder; None: nothing yet."""
    document = _load(folder).get("choice")
    if document is None:
        return None
    read = object_of(Fidelity)
    with naming(folder / FIDELITY_FILE):
        return from_fields(
            FidelityChoice, document, chosen=read, full=read, measured=tuple_of(read)
        )


def _load(folder: Path) -> dict[str, Any]:
    file = folder / FIDELITY_FILE
    if not file.exists():
        return {"trainings": {}}
    document = read_json(file, "fidelity")
    trainings = document.get("trainings") if isinstance(document, dict) else None
    if not (isinstance(trainings, dict) and all(map(_is_training, trainings.values()))):
        raise ValueError(
            f"Expected what --measure-proxy writes. Received: {str(file)!r} of another shape. "
            "Remove it."
        )
    return document


def _is_training(value: Any) -> bool:
    """Whether a value is what `_kept` makes."""
    numbers = [value.get(key) for key in _TRAINING] if isinstance(value, dict) else [None]
    return all(map(is_finite, numbers)) and is_curve(value.get("curve"))


def _cheaper_ways(plan: SearchPlan) -> Iterator[tuple[float, int | None]]:
    """Shares of the images, and a smaller size if the network allows it."""
    yield from ((fraction, None) for fraction in _FRACTIONS)
    height, width, _ = plan.space.base.input_shape
    size = round(_SIZE_SHARE * (height or 0))
    if height == width and size >= plan.space.base.total_stride:
        yield 1.0, size


def _correlation(accuracies: Sequence[float], reference: Sequence[float]) -> float | None:
    if len(set(accuracies)) < 2 or len(set(reference)) < 2:
        return None
    return float(scipy.stats.spearmanr(accuracies, reference).statistic)


class _Measuring:
    """Trains the sample, and keeps each training in the folder."""

    def __init__(
        self,
        plan: SearchPlan,
        data: ImageData,
        folder: Path,
        networks: int,
        strategy: Strategy,
        on_result: OnResult,
    ) -> None:
        self._plan = plan
        self._data = hold_out(data, plan.validation_share, plan.seed)
        self._folder = folder
        self._specs = stratified_sample(plan.space, networks, plan.seed)
        self._strategy = strategy
        self._on_result = on_result
        self._document = _load(folder)
        self._reference: list[float] | None = None

    @property
    def seconds(self) -> float:
        """Of all trainings so far."""
        return float(sum(item["seconds"] for item in self._document["trainings"].values()))

    def measure(self, epochs: int, fraction: float, resolution: int | None) -> list[Fidelity]:
        """Train every network, and rate each number of epochs up to `epochs`."""
        results = self._train(epochs, fraction, resolution)
        if self._reference is None:  # full trainings come first
            self._reference = [result["curve"][-1] for result in results]
        in_epochs = sum(result["epoch_seconds"] for result in results)
        others = sum(result["seconds"] for result in results) - in_epochs
        return [
            Fidelity(
                epochs=count,
                data_fraction=fraction,
                resolution=resolution,
                seconds=(others + in_epochs * count / epochs) / len(results),
                rank_correlation=_correlation(
                    [_after(count, result["curve"]) for result in results], self._reference
                ),
            )
            for count in range(1, epochs + 1)
        ]

    def _train(self, epochs: int, fraction: float, resolution: int | None) -> list[dict[str, Any]]:
        trainings = self._document["trainings"]
        data = subset(self._data, fraction, self._plan.seed)
        way = f"{fraction:.0%} of the images" + (f", {resolution} pixels" if resolution else "")
        found = []
        for number, spec in enumerate(self._specs):
            name = f"network {number}, {way}"
            if name not in trainings:
                result = train_candidate(
                    at_resolution(spec, resolution),
                    data,
                    self._plan.recipe,
                    epochs=epochs,
                    strategy=self._strategy,
                )
                trainings[name] = _kept(result)
                self._write()
                self._on_result(name, result.accuracy)
            found.append(trainings[name])
        return found

    def save(self, choice: FidelityChoice) -> None:
        """Keep what is chosen."""
        self._document["choice"] = asdict(choice)
        self._write()

    def _write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(self._folder / FIDELITY_FILE, json.dumps(self._document, indent=2) + "\n")


def _after(epochs: int, curve: Sequence[float]) -> float:
    """The accuracy after so many epochs; after the last one where `patience` ended before."""
    return curve[min(epochs, len(curve)) - 1]


def _kept(result: TrialResult) -> dict[str, Any]:
    return {
        "curve": list(result.curve),
        "seconds": result.seconds,
        "epoch_seconds": result.training_seconds + result.evaluation_seconds,
    }
