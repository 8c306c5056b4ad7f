"""Mends of KerasTuner 1.4.8's `Oracle`, each a small subclass that names what it mends.

`Mended` is all of them; `oracles` has them over each kind of search. The package is pinned below
1.5, and tests show each fault in the original.
"""

from __future__ import annotations

import collections
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_inception.files import write_text
from tuning.space import Value

# What a worker carries to the chief in the place of a trial's message, which gRPC does not.
ERROR_VALUE = "tuner/error"
# Values that say how far a trial is trained, and from which trial it goes on.
TRIAL_VALUE, EPOCHS_VALUE, FIRST_EPOCH_VALUE, ROUND_VALUE = (
    "tuner/trial_id",
    "tuner/epochs",
    "tuner/initial_epoch",
    "tuner/round",
)
LEASE_SECONDS = 120.0
# Processes that a trial may take with it before it counts as failed.
MOST_LOSSES = 3
MOST_FAILURES = 8
_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class WholeFiles(keras_tuner.Oracle):
    """Files that are whole, and a reload that copes with what others left.

    The original writes oracle.json and trial.json in place, so that a kill or a full disk leaves
    half a file and `reload` raises JSONDecodeError. It saves the state before it takes an ended
    trial off the list of those that run, so that a finished search runs its last trial again; and
    it forgets a trial whose file was written when oracle.json was not.
    """

    ongoing_trials: dict[str, Trial]

    def save(self) -> None:
        """Write oracle.json aside and rename it."""
        write_text(Path(self._get_oracle_fname()), json.dumps(self.get_state()))

    def _save_trial(self, trial: Trial) -> None:
        path = Path(self._get_trial_dir(trial.trial_id), "trial.json")
        write_text(path, json.dumps(trial.get_state()))

    def reload(self) -> None:
        """Take up the project folder; files that cannot be read are set aside, with a warning."""
        for path in sorted(Path(self._project_dir).glob("trial_*/trial.json")):
            trial_id = path.parent.name.removeprefix("trial_")
            state = _read_json(path)
            if state is None:
                trial = Trial(keras_tuner.HyperParameters(), trial_id, TrialStatus.FAILED)
                trial.message = f"{path.name} could not be read"
                self._save_trial(trial)
            else:
                trial = Trial.from_state(state)
            self.trials[trial_id] = trial
        state = _read_json(Path(self._get_oracle_fname()))
        if state is not None:
            self.set_state(state)
        self._reconcile()

    def _reconcile(self) -> None:
        """The trials' own files say what has ended; whatever else is not out waits to be run."""
        ended = {key for key, trial in self.trials.items() if trial.status in _ENDED}
        self.ongoing_trials = {
            tuner: trial
            for tuner, trial in self.ongoing_trials.items()
            if trial.trial_id not in ended
        }
        out = {trial.trial_id for trial in self.ongoing_trials.values()}
        self._retry_queue = sorted(set(self.trials) - ended - out, reverse=True)
        self.start_order += sorted(set(self.trials) - set(self.start_order))
        self.end_order += sorted(ended - set(self.end_order))
        for key, trial in self.trials.items():
            if self._id_to_hash[key] is None:
                self._record_values(trial)


class Leases(keras_tuner.Oracle):
    """A trial is lent to a worker, not given.

    The original waits for ever for a worker that was killed, or came back under a new id; after a
    restart it runs the trials twice that its workers still run; and it counts both results of such
    a trial. Here a worker renews its lease by `get_trial`. When the lease is over, or the same
    worker asks anew, the trial is queued again; the first result counts. A trial that took
    `MOST_LOSSES` processes with it (out of memory, say) has failed. Workers get IDLE, not STOPPED,
    while trials are out that may come back.
    """

    ongoing_trials: dict[str, Trial]

    def __init__(
        self,
        *args: Any,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._losses: dict[str, int] = collections.defaultdict(int)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """A trial to run, or IDLE, or STOPPED when all is done."""
        self._end_leases()
        if tuner_id in self.ongoing_trials:  # its process ended in the middle, and is back
            self._take_back(tuner_id)
        trial = super().create_trial(tuner_id)
        self._seen[tuner_id] = self._clock()
        if trial.status == TrialStatus.STOPPED and (self.ongoing_trials or self._retry_queue):
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    @keras_tuner.synchronized
    def get_trial(self, trial_id: str) -> Trial:
        """The trial; asking for it renews the lease."""
        for tuner_id, trial in self.ongoing_trials.items():
            if trial.trial_id == trial_id:
                self._seen[tuner_id] = self._clock()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Trial:
        """Take in results, unless the trial has ended by another worker's."""
        if trial_id in self.end_order:
            return self.trials[trial_id]
        self.trials[trial_id].metrics = type(
            self.trials[trial_id].metrics
        )()  # or reruns are averaged
        return super().update_trial(trial_id, metrics, step)

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """End a trial, once."""
        if trial.trial_id not in self.end_order:
            if trial.trial_id in self._retry_queue:
                self._retry_queue.remove(trial.trial_id)
            super().end_trial(trial)
        self.ongoing_trials = {
            tuner_id: ongoing
            for tuner_id, ongoing in self.ongoing_trials.items()
            if ongoing.trial_id != trial.trial_id
        }
        self.save()

    @keras_tuner.synchronized
    def is_over(self) -> bool:
        """Whether no trial is out or waits, and every worker knows it or is gone."""
        self._end_leases()
        return not (self.ongoing_trials or self._retry_queue or self.tuner_ids)

    def reload(self) -> None:
        """Take up the project; workers that outlived the chief keep their trials."""
        super().reload()
        self._seen = dict.fromkeys(self.ongoing_trials, self._clock())

    def _end_leases(self) -> None:
        oldest = self._clock() - self.lease_seconds
        for tuner_id in [key for key, seen in self._seen.items() if seen < oldest]:
            del self._seen[tuner_id]
            self.tuner_ids.discard(tuner_id)
            if tuner_id in self.ongoing_trials:
                self._take_back(tuner_id)

    def _take_back(self, tuner_id: str) -> None:
        trial = self.ongoing_trials.pop(tuner_id)
        self._losses[trial.trial_id] += 1
        losses = self._losses[trial.trial_id]
        if losses < MOST_LOSSES:
            self._retry_queue.append(trial.trial_id)
        else:
            trial.status = TrialStatus.FAILED
            trial.message = (
                f"{losses} processes ended while they ran this trial: killed, or out of memory"
            )
            self.end_order.append(trial.trial_id)
        self._save_trial(trial)
        self.save()

    def get_state(self) -> dict[str, Any]:
        """The original's state, and the losses."""
        return {**super().get_state(), "losses": dict(self._losses)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set what `get_state` gave."""
        super().set_state(state)
        self._losses.update(state.get("losses", {}))


class SoftAbort(Leases):
    """Failures end the search in good order, and keep their reasons.

    The original raises within `end_trial` after three failures in a row: as a gRPC error, which
    kills the workers, while the chief waits for ever on a lock that nobody opens. The message of a
    failed trial does not travel by gRPC.
    """

    def __init__(self, *args: Any, most_failures: int = MOST_FAILURES, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most_failures = most_failures
        self._resumed_after = 0

    @property
    def aborted(self) -> str | None:
        """The last reason, if the last `most_failures` trials all failed; since the resume."""
        last = [self.trials[key] for key in self.end_order[self._resumed_after :]]
        last = last[-self.most_failures :]
        if len(last) < self.most_failures or any(t.status != TrialStatus.FAILED for t in last):
            return None
        return str(last[-1].message)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """A trial to run, or STOPPED after too many failures."""
        if self.aborted is None:
            return super().create_trial(tuner_id)
        self.tuner_ids.discard(tuner_id)
        return Trial(keras_tuner.HyperParameters(), status=TrialStatus.STOPPED)

    @keras_tuner.synchronized
    def is_over(self) -> bool:
        """Whether no trial is out and every worker knows it; what waits is not run any more."""
        if self.aborted is None:
            return super().is_over()
        self._end_leases()
        return not (self.ongoing_trials or self.tuner_ids)

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """End a trial, with the message that came among its values."""
        trial.message = trial.hyperparameters.values.pop(ERROR_VALUE, None) or trial.message
        super().end_trial(trial)

    def _check_consecutive_failures(self) -> None:
        """Instead of the original's exception there is `aborted`."""

    def reload(self) -> None:
        """Take up the project; what failed before is no reason to stop again."""
        super().reload()
        self._resumed_after = len(self.end_order)


class NoRepeats(keras_tuner.Oracle):
    """The neutral point first, and no network twice.

    The original tells repeats by hyperparameters; different ones may give the same network. Its
    Gaussian process proposes the same point again and again.

    Args:
        network_of: the network of a point's values, as text; None: the values themselves.
    """

    def __init__(
        self,
        *args: Any,
        network_of: Callable[[dict[str, Value]], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._network_of = network_of

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The proposal; a random one in the place of a network that was tried."""
        response = super().populate_space(trial_id)
        repeated = response["status"] == TrialStatus.RUNNING and self._duplicate(response["values"])
        if not repeated:
            return response
        values = self._random_values()
        if values is None:
            return {"status": TrialStatus.STOPPED, "values": None}
        kept = {k: v for k, v in response["values"].items() if k.startswith("tuner/")}
        return {"status": TrialStatus.RUNNING, "values": values | kept}

    def _random_values(self) -> dict[str, Value] | None:
        if not self.trials:
            return {item.name: item.default for item in self.hyperparameters.space}
        return super()._random_values()

    def _compute_values_hash(self, values: dict[str, Value]) -> str:
        own = {key: value for key, value in values.items() if not key.startswith("tuner/")}
        network = self._network_of(own) if self._network_of else json.dumps(own, sort_keys=True)
        return super()._compute_values_hash(
            {"network": network, TRIAL_VALUE: values.get(TRIAL_VALUE)}
        )


class Mended(NoRepeats, SoftAbort, WholeFiles):
    """All mends; put it before a kind of oracle."""


def _read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none, or no JSON, which is then set aside."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"{path} cannot be read ({error}) and is set aside.", stacklevel=2)
        path.replace(path.with_suffix(".unreadable"))
        return None
