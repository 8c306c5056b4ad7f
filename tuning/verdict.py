"""The verdict of a search: its finalists, what noise explains, and how well trials ranked them.

Each finalist was trained fully with several seeds, on the training images without the held-out
ones, by which all are compared.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.stats

from keras_inception.spec.network import NetworkSpec
from keras_inception.wording import counted
from tuning.trials import SearchedTrial, completed_of, read_finals, read_trials

VERDICT_FILE = "verdict.json"
# Of tests and intervals.
_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A network that was trained fully.

    Attributes:
        number: of its trial.
        spec: the network.
        trial_accuracy: of its trial.
        accuracies: one a seed.
    """

    number: int
    spec: NetworkSpec
    trial_accuracy: float
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the accuracies."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the accuracies; None: there is one alone."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the last stage of a search found.

    Attributes:
        finalists: the best first, by the mean.
        noise: standard deviation over seeds, pooled over the networks; None: one seed.
        worse: numbers of the finalists that the best one beats by more than the noise explains.
        rank_correlation: Spearman's rho between trials' accuracies and finalists' means; None: too
            few, or all alike.
        interval: of the rank correlation, 95%; None: not known.
    """

    finalists: tuple[Finalist, ...]
    noise: float | None
    worse: tuple[int, ...]
    rank_correlation: float | None
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        return " ".join([*self._best(), *self._ranking()])

    def _best(self) -> list[str]:
        best, *others = self.finalists
        name = f"{counted(len(self.finalists), 'finalist')} is trial {best.number}'s network"
        if self.noise is None:
            return [
                f"The best of {name}: {best.mean:.2%} after one full training; its noise is not "
                "known."
            ]
        count = counted(len(best.accuracies), "full training")
        text = (
            f"The best of {name}: {best.mean:.2%} in the mean of {count} (standard deviation over "
            f"seeds {self.noise:.2%}, of all finalists together)."
        )
        if not others:
            return [text]
        if not self.worse:
            return [text, "Its lead over the others may be chance."]
        numbers = ", ".join(map(str, self.worse))
        trials = "that of trial" if len(self.worse) == 1 else "those of trials"
        rest = "" if len(self.worse) == len(others) else "; its lead over the others may be chance"
        return [text, f"It beats {trials} {numbers} by more than the noise{rest}."]

    def _ranking(self) -> list[str]:
        if self.rank_correlation is None or self.interval is None:
            return []
        low, high = self.interval
        return [
            f"Rank correlation of the trials with the full trainings: {self.rank_correlation:.2f} "
            f"(95% interval {low:.2f} to {high:.2f}, {len(self.finalists)} networks)."
        ]

    def to_json(self) -> str:
        """The numbers, without the networks, as JSON text."""
        document = {
            "finalists": [
                {
                    "trial": item.number,
                    "mean": item.mean,
                    "standard_deviation": item.spread,
                    "accuracies": item.accuracies,
                    "trial_accuracy": item.trial_accuracy,
                }
                for item in self.finalists
            ],
            "noise": self.noise,
            "beaten_beyond_noise": self.worse,
            "rank_correlation": self.rank_correlation,
            "rank_correlation_interval": self.interval,
        }
        return json.dumps(document, indent=2) + "\n"


def read_verdict(folder: str | os.PathLike[str]) -> Verdict | None:
    """The verdict of a search, from its folder; None: no finalist was trained.

    While finalists are trained, those with fewer trainings than others are left out.
    """
    finals = completed_of(read_finals(folder))
    trials = completed_of(read_trials(folder))
    known = {trial.number for trial in trials}
    finals = [trial for trial in finals if trial.finalist in known]
    return verdict(trials, finals) if finals else None


def verdict(trials: Sequence[SearchedTrial], finals: Sequence[SearchedTrial]) -> Verdict:
    """The verdict from the trials and the completed trainings of finalists."""
    by_number = {trial.number: trial for trial in trials}
    accuracies: dict[int, list[float]] = {}
    for trial in finals:
        accuracies.setdefault(trial.finalist or 0, []).append(trial.accuracy)
    most = max(map(len, accuracies.values()))
    found = [
        Finalist(
            number=number,
            spec=by_number[number].spec,
            trial_accuracy=by_number[number].accuracy,
            accuracies=tuple(own),
        )
        for number, own in accuracies.items()
        if len(own) == most
    ]
    found.sort(key=lambda item: (-item.mean, item.number))
    rho = _rank_correlation(found)
    return Verdict(
        finalists=tuple(found),
        noise=_noise(found),
        worse=_worse(found),
        rank_correlation=rho,
        interval=None if rho is None else rank_interval(rho, len(found)),
    )


def _noise(finalists: Sequence[Finalist]) -> float | None:
    spreads = [item.spread for item in finalists if item.spread is not None]
    return math.sqrt(statistics.fmean(s * s for s in spreads)) if spreads else None


def _worse(finalists: Sequence[Finalist]) -> tuple[int, ...]:
    """By Tukey's test of all pairs, which allows for the number of comparisons."""
    best, *others = finalists
    if not others or _noise(finalists) is None:
        return ()
    if not _noise(finalists):
        return tuple(item.number for item in others if item.mean < best.mean)
    test = scipy.stats.tukey_hsd(*(item.accuracies for item in finalists))
    return tuple(
        item.number for place, item in enumerate(others, start=1) if test.pvalue[0, place] < _LEVEL
    )


def _rank_correlation(finalists: Sequence[Finalist]) -> float | None:
    before = [item.trial_accuracy for item in finalists]
    after = [item.mean for item in finalists]
    if len(set(before)) < 2 or len(set(after)) < 2:
        return None
    return float(scipy.stats.spearmanr(before, after).statistic)


def rank_interval(rho: float, count: int) -> tuple[float, float]:
    """The 95% interval of Spearman's rho of `count` pairs.

    Source: Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and
    Spearman correlations" (2000): Fisher's z with variance (1 + rho^2 / 2) / (n - 3). At 1 and -1,
    where z is infinite, rho is moved halfway to the next value that ranks can give.
    """
    if count < 4:
        return -1.0, 1.0
    limit = 1 - 6 / (count * (count * count - 1))
    rho = min(max(rho, -limit), limit)
    half = scipy.stats.norm.ppf(1 - _LEVEL / 2) * math.sqrt((1 + rho * rho / 2) / (count - 3))
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
