"""One step and ten of both engines from the same weights and batches, and what NumPy makes of them.

Losses, and the gradients of the rows "plain", "batch_norm" and "micro_batches_batch_norm", are
worked out in float64 by `step_numpy`; other rows differ from these by a formula, or are compared in
the classifier's bias, whose gradient is softmax minus target.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from processes import start, wait_for_all
from step_numpy import cross_entropy, forward, gradient, log_softmax
from step_rows import CLASS_WEIGHTS, LOGITS, ROWS, STEPS

BACKENDS = ("tensorflow", "jax")
BIAS = "predictions_logits/bias"
HALF = ("bfloat16", "bfloat16_exact")
Row = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By backend."""
    folders = {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}
    wait_for_all(
        [
            start("step_rows.py", folder, KERAS_BACKEND=backend)
            for backend, folder in folders.items()
        ]
    )
    return folders


@pytest.fixture(scope="module")
def rows(folders: dict[str, Path]) -> dict[str, dict[str, Row]]:
    """By backend and name."""
    return {
        backend: {row: read(folder / f"{row}.npz") for row in ROWS}
        for backend, folder in folders.items()
    }


def read(path: Path) -> Row:
    with np.load(path) as arrays:
        return dict(arrays)


def part(row: Row, name: str) -> dict[str, np.ndarray]:
    return {key[len(name) + 1 :]: row[key] for key in row if key.startswith(f"{name}/")}


def gradients(row: Row) -> dict[str, np.ndarray]:
    """What the first step took away, of trainable weights; its rate is 1."""
    before, after = part(row, "before"), part(row, "after_1")
    return {path: before[path] - after[path] for path in before if "moving" not in path}


def probabilities(labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    own = np.eye(3)[labels] if labels.ndim == 1 else labels.astype(np.float64)
    return own * (1 - smoothing) + smoothing / 3


def losses(row: Row, head: str = "main", smoothing: float = 0.0) -> np.ndarray:
    targets = probabilities(row["labels_1"], smoothing)
    return cross_entropy(row[f"logits_1/{head}"], targets)


def bias_gradient(row: Row, step: int = 1, smoothing: float = 0.0, weights: Any = 1.0) -> Any:
    """Of the classifier's bias: the mean of softmax minus target."""
    targets = probabilities(row[f"labels_{step}"], smoothing)
    difference = np.exp(log_softmax(row[f"logits_{step}/main"])) - targets
    return (difference * np.reshape(weights, (-1, 1))).mean(axis=0)


def changes(row: Row, path: str = BIAS) -> list[np.ndarray]:
    """What each step added to a weight."""
    states = [row[f"before/{path}"], *(row[f"after_{step}/{path}"] for step in steps())]
    return [after - before for before, after in pairwise(states)]


def steps() -> range:
    return range(1, STEPS + 1)


def mean_loss(row: Row, parts: int = 1) -> Any:
    """The loss as a function of the weights, in NumPy."""
    pairs = list(
        zip(
            np.split(row["images"], parts),
            np.split(probabilities(row["labels_1"]), parts),
            strict=True,
        )
    )

    def loss(weights: Row) -> float:
        return float(np.mean([cross_entropy(forward(weights, x)[0], y).mean() for x, y in pairs]))

    return loss


@pytest.mark.parametrize("name", ROWS)
def test_the_engines_take_the_same_steps(rows, name):
    tensorflow, jax = (rows[backend][name] for backend in BACKENDS)
    # bfloat16 keeps 8 bits, and the two round at different places.
    tolerance = 0.05 if name in HALF else 1e-5
    assert_allclose(jax["labels_1"], tensorflow["labels_1"], rtol=0, atol=0)
    assert_allclose(jax["metrics"][0], tensorflow["metrics"][0], rtol=tolerance, atol=tolerance)
    for path, values in part(tensorflow, "after_1").items():
        assert_allclose(jax[f"after_1/{path}"], values, rtol=0, atol=tolerance, err_msg=path)
    # A step from a gap of 30 goes so far that the next ones depend on its rounding.
    if name not in (*HALF, "gap_of_30"):
        assert_allclose(jax["metrics"], tensorflow["metrics"], rtol=1e-5, atol=1e-5)
        for state in (f"after_{STEPS}", "averaged"):
            for path, values in part(tensorflow, state).items():
                assert_allclose(jax[f"{state}/{path}"], values, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_ends_where_it_meets_nan(folders, backend):
    ends = json.loads((folders[backend] / "diverged.json").read_text())
    assert "Received: a loss of nan at step 5, in epoch 1" in ends["loss"]
    assert "Received: a weight that is not finite at step 4, in epoch 1" in ends["weight"]


@pytest.mark.parametrize("backend", BACKENDS)
class TestAgainstNumPy:
    """Each feature of the step by itself."""

    @pytest.mark.parametrize(
        "name", ["plain", "clipping", "frozen", "micro_batches", "weight_decay", "bfloat16"]
    )
    def test_the_loss_is_the_mean_cross_entropy(self, rows, backend, name):
        row = rows[backend][name]
        # The logits of bfloat16 are rounded in another order where a step computes them.
        tolerance = 2e-2 if name == "bfloat16" else 1e-5
        assert row["metrics"][0, 0] == pytest.approx(losses(row).mean(), rel=tolerance)

    @pytest.mark.parametrize("name", [name for name in ROWS if name not in HALF])
    def test_the_held_out_loss_is_plain(self, rows, backend, name):
        """Without smoothing, class weights, auxiliary losses and rows that fill the last batch."""
        row = rows[backend][name]
        logits, labels = row["held_out/main"], row["held_out_labels"]
        assert len(labels) % 8  # uneven batches
        expected = cross_entropy(logits, probabilities(labels)).mean()
        hits = (logits.argmax(axis=1) == labels).mean()
        assert_allclose(row["evaluation"], [expected, hits], rtol=1e-5)

    @pytest.mark.parametrize("name", ["plain", "aux", "mixup", "micro_batches", "class_weights"])
    def test_the_accuracy_is_the_share_of_right_answers(self, rows, backend, name):
        row = rows[backend][name]
        right = probabilities(row["labels_1"]).argmax(axis=1)
        hits = (row["logits_1/main"].argmax(axis=1) == right).mean()
        assert row["metrics"][0, 1] == pytest.approx(hits, rel=1e-6)

    @pytest.mark.parametrize(
        ("name", "parts"), [("plain", 1), ("batch_norm", 1), ("micro_batches_batch_norm", 4)]
    )
    def test_the_gradient_of_all_weights(self, rows, backend, name, parts):
        """Batch normalization takes the statistics of the batch, or of each micro-batch."""
        row = rows[backend][name]
        before, loss = part(row, "before"), mean_loss(row, parts)
        assert row["metrics"][0, 0] == pytest.approx(loss(before), rel=1e-5)
        received = gradients(row)
        expected = gradient(loss, before, received)
        assert max(np.abs(values).max() for values in expected.values()) > 0.05
        for path, values in expected.items():
            assert_allclose(received[path], values, atol=1e-5, err_msg=path)

    @pytest.mark.parametrize(
        ("name", "parts"), [("batch_norm", 1), ("micro_batches_batch_norm", 4)]
    )
    def test_batch_norm_takes_in_the_statistics(self, rows, backend, name, parts):
        """Momentum .9, from a mean of 0 and a variance of 1; each micro-batch is one of them."""
        row = rows[backend][name]
        before, expected = part(row, "before"), part(row, "before")
        for images in np.split(row["images"], parts):
            for layer, mean, variance in forward(before, images)[1]:
                for path, value in (("mean", mean), ("variance", variance)):
                    path = f"{layer}/moving_{path}"
                    expected[path] = 0.9 * expected[path] + 0.1 * value
        for path in (path for path in expected if "moving" in path):
            assert_allclose(row[f"after_1/{path}"], expected[path], atol=1e-6, err_msg=path)

    @pytest.mark.parametrize("name", ["plain", "micro_batches", "mixup"])
    def test_the_gradient_is_softmax_minus_target(self, rows, backend, name):
        row = rows[backend][name]
        assert_allclose(gradients(row)[BIAS], bias_gradient(row), atol=1e-5)

    def test_auxiliary_heads_weigh_three_tenths(self, rows, backend):
        row = rows[backend]["aux"]
        expected = losses(row).mean() + 0.3 * losses(row, "aux_1").mean()
        assert row["metrics"][0, 0] == pytest.approx(expected, rel=1e-5)
        targets = probabilities(row["labels_1"])
        difference = np.exp(log_softmax(row["logits_1/aux_1"])) - targets
        assert_allclose(gradients(row)["aux_1_logits/bias"], 0.3 * difference.mean(0), atol=1e-5)

    def test_clipping_shortens_the_gradient_to_its_norm(self, rows, backend):
        plain, clipped = (gradients(rows[backend][name]) for name in ("plain", "clipping"))
        norm = norm_of(plain)
        assert norm > 0.1
        for path, values in plain.items():
            assert_allclose(clipped[path], values * 0.05 / norm, atol=1e-6, err_msg=path)

    def test_smoothing(self, rows, backend):
        row = rows[backend]["smoothing"]
        assert row["metrics"][0, 0] == pytest.approx(losses(row, smoothing=0.3).mean(), rel=1e-5)
        assert_allclose(gradients(row)[BIAS], bias_gradient(row, smoothing=0.3), atol=1e-5)

    def test_mixed_labels_are_soft(self, rows, backend):
        row = rows[backend]["mixup"]
        assert ((row["labels_1"] > 0.05) & (row["labels_1"] < 0.95)).any()
        assert row["metrics"][0, 0] == pytest.approx(losses(row).mean(), rel=1e-5)

    def test_class_weights_are_factors_of_the_images_losses(self, rows, backend):
        row = rows[backend]["class_weights"]
        weights = np.array(CLASS_WEIGHTS)[row["labels_1"]]
        assert row["metrics"][0, 0] == pytest.approx((weights * losses(row)).mean(), rel=1e-5)
        assert_allclose(gradients(row)[BIAS], bias_gradient(row, weights=weights), atol=1e-5)

    def test_class_weights_are_those_of_the_labels_without_smoothing(self, rows, backend):
        row = rows[backend]["class_weights_smoothing"]
        weights = np.array(CLASS_WEIGHTS)[row["labels_1"]]
        expected = (weights * losses(row, smoothing=0.3)).mean()
        assert row["metrics"][0, 0] == pytest.approx(expected, rel=1e-5)
        gradient = bias_gradient(row, smoothing=0.3, weights=weights)
        assert_allclose(gradients(row)[BIAS], gradient, atol=1e-5)

    def test_frozen_layers_keep_their_weights_and_the_others_learn_as_before(self, rows, backend):
        plain, frozen = (gradients(rows[backend][name]) for name in ("plain", "frozen"))
        for path, values in plain.items():
            expected = 0 * values if path.startswith("conv1") else values
            assert_allclose(frozen[path], expected, atol=1e-6, err_msg=path)

    def test_micro_batches_have_the_gradient_of_the_whole(self, rows, backend):
        plain, parts = (gradients(rows[backend][name]) for name in ("plain", "micro_batches"))
        for path, values in plain.items():
            assert_allclose(parts[path], values, atol=1e-6, err_msg=path)

    def test_weighted_micro_batches_are_clipped_as_a_whole(self, rows, backend):
        """Divided by the images of the batch, not by the weights of a part."""
        row = rows[backend]["micro_batches_weighted"]
        whole, parts = gradients(rows[backend]["class_weights"]), gradients(row)
        weights = np.array(CLASS_WEIGHTS)[row["labels_1"]]
        assert weights[:4].sum() != weights[4:].sum()
        assert row["metrics"][0, 0] == pytest.approx((weights * losses(row)).mean(), rel=1e-5)
        for path, values in whole.items():
            clipped = values * 0.05 / norm_of(whole)
            assert_allclose(parts[path], clipped, atol=1e-6, err_msg=path)

    @pytest.mark.parametrize("end", ["", "_batch_norm"])
    def test_weight_decay_is_for_kernels(self, rows, backend, end):
        """Not for biases, gamma and beta."""
        name = end.removeprefix("_") or "plain"
        plain, decayed = (gradients(rows[backend][row]) for row in (name, f"weight_decay{end}"))
        before = part(rows[backend][name], "before")
        for path, values in plain.items():
            extra = 0.1 * before[path] if path.endswith("kernel") else 0
            # Keras lets weights decay first, and applies the same gradient after it.
            assert_allclose(decayed[path], values + extra, atol=1e-5, err_msg=path)

    @pytest.mark.parametrize("end", ["", "_batch_norm"])
    def test_biases_learn_at_their_rate(self, rows, backend, end):
        """Not gamma and beta."""
        name = end.removeprefix("_") or "plain"
        plain, doubled = (gradients(rows[backend][row]) for row in (name, f"bias_rate{end}"))
        for path, values in plain.items():
            factor = 2 if path.endswith("bias") else 1
            assert_allclose(doubled[path], factor * values, atol=1e-6, err_msg=path)

    def test_the_bias_rate_does_not_count_in_the_norm(self, rows, backend):
        plain, both = (gradients(rows[backend][name]) for name in ("plain", "clipping_bias_rate"))
        for path, values in plain.items():
            factor = (2 if path.endswith("bias") else 1) * 0.05 / norm_of(plain)
            assert_allclose(both[path], factor * values, atol=1e-6, err_msg=path)

    def test_a_wrong_answer_by_30_logits_costs_30_and_has_a_gradient(self, rows, backend):
        row = rows[backend]["gap_of_30"]
        wrong = (row["labels_1"] != 0).mean()
        assert 0 < wrong < 1
        assert row["metrics"][0, 0] == pytest.approx(30 * wrong, rel=1e-6)
        shares = np.bincount(row["labels_1"], minlength=3) / len(row["labels_1"])
        assert_allclose(gradients(row)[BIAS], [1 - shares[0], -shares[1], -shares[2]], atol=1e-5)

    def test_bfloat16_computes_in_half_and_keeps_weights_in_float32(self, rows, backend):
        plain, half = (rows[backend][name] for name in ("plain", "bfloat16"))
        assert all(values.dtype == np.float32 for values in part(half, "after_1").values())
        assert_allclose(gradients(half)[BIAS], bias_gradient(half), atol=2e-2)
        one, other = (
            np.concatenate([*map(np.ravel, gradients(r).values())]) for r in (plain, half)
        )
        # Eight bits a number: off by parts in a thousand, and by no more than some hundredths.
        relative = np.linalg.norm(other - one) / np.linalg.norm(one)
        assert 1e-3 < relative < 5e-2

    def test_bfloat16_has_its_loss_in_float32(self, rows, backend):
        """The logits 1.5, .25 and -2 are exact in bfloat16, the loss is not."""
        row = rows[backend]["bfloat16_exact"]
        logits = np.array([LOGITS["bfloat16_exact"]] * 8)
        expected = cross_entropy(logits, probabilities(row["labels_1"])).mean()
        assert row["metrics"][0, 0] == pytest.approx(expected, rel=1e-6)
        # The averages of the gradient are in bfloat16.
        assert_allclose(gradients(row)[BIAS], bias_gradient(row), atol=4e-3)


@pytest.mark.parametrize("backend", BACKENDS)
class TestTenSteps:
    """The rates of every step, by the classifier's bias; the first rate of a run of ten is 0.1."""

    def test_a_cosine_with_warmup_and_momentum(self, rows, backend):
        """0, 1/3 and 2/3 of the rate in three steps, then half a cosine over seven."""
        row = rows[backend]["momentum"]
        rates = [0, 1 / 3, 2 / 3, *(0.5 + 0.5 * np.cos(np.pi * np.arange(7) / 7))]
        velocity: Any = 0.0
        for step, rate, change in zip(steps(), rates, changes(row), strict=True):
            velocity = 0.9 * velocity - 0.1 * rate * bias_gradient(row, step)
            assert_allclose(change, velocity, atol=1e-5, err_msg=str(step))

    def test_a_staircase(self, rows, backend):
        """Five epochs of two steps; half the rate after every second epoch."""
        row = rows[backend]["staircase"]
        rates = [0.1] * 4 + [0.05] * 4 + [0.025] * 2
        for step, rate, change in zip(steps(), rates, changes(row), strict=True):
            assert_allclose(change, -rate * bias_gradient(row, step), atol=1e-6, err_msg=str(step))

    def test_adamw(self, rows, backend):
        """Ten steps of a bias, and the first of a kernel, which decays."""
        row = rows[backend]["adamw"]
        mean = variance = 0.0
        for step, change in zip(steps(), changes(row), strict=True):
            own = bias_gradient(row, step)
            mean, variance = 0.9 * mean + 0.1 * own, 0.999 * variance + 0.001 * own**2
            rate = 0.1 * (0.5 + 0.5 * np.cos(np.pi * (step - 1) / 10))
            scale = np.sqrt(variance / (1 - 0.999**step)) + 1e-7
            expected = -rate * mean / (1 - 0.9**step) / scale
            assert_allclose(change, expected, rtol=1e-3, atol=1e-6, err_msg=str(step))
        # The same weights and batch as the plain row's; its rate each way, and the decay.
        path = "predictions_logits/kernel"
        own = gradients(rows[backend]["plain"])[path]
        expected = (
            -0.1 * own / (np.abs(own) + 1e-7 / 0.001**0.5) - 0.1 * 0.1 * row[f"before/{path}"]
        )
        assert_allclose(changes(row, path)[0], expected, atol=1e-5)

    def test_the_uniform_average(self, rows, backend):
        """Over the steps after the first three, which is three tenths of the run."""
        row = rows[backend]["uniform_average"]
        for path, values in part(row, "averaged").items():
            expected = np.mean([row[f"after_{step}/{path}"] for step in range(4, 11)], axis=0)
            assert_allclose(values, expected, atol=1e-6, err_msg=path)

    def test_the_exponential_average(self, rows, backend):
        """Momentum .5: first the weights themselves, then the mean of average and weights."""
        row = rows[backend]["exponential_average"]
        for path, values in part(row, "averaged").items():
            if "moving" in path:
                continue
            expected = row[f"after_1/{path}"]
            for step in range(2, STEPS + 1):
                expected = (expected + row[f"after_{step}/{path}"]) / 2
            assert_allclose(values, expected, atol=1e-6, err_msg=path)
        # What only the averaged weights show, in the mean over training batches.
        seen = row["averaged/conv1_bn/moving_mean"]
        assert np.abs(seen - row[f"after_{STEPS}/conv1_bn/moving_mean"]).max() > 1e-3


def norm_of(gradients: dict[str, np.ndarray]) -> float:
    return float(np.linalg.norm([np.linalg.norm(values) for values in gradients.values()]))
