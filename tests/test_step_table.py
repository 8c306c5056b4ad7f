"""One step and ten of both engines from the same weights and batches, and what NumPy makes of them.

Losses are worked out in float64 from the logits of the first batch; gradients from those of the
plain row, or from softmax minus target, which is that of the classifier's bias.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from processes import start, wait_for_all
from step_rows import CLASS_WEIGHTS, ROWS, STEPS

BACKENDS = ("tensorflow", "jax")
BIAS = "predictions_logits/bias"
Row = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Row]]:
    """By backend and name."""
    folders = {backend: tmp_path_factory.mktemp(backend) for backend in BACKENDS}
    wait_for_all(
        [
            start("step_rows.py", folder, KERAS_BACKEND=backend)
            for backend, folder in folders.items()
        ]
    )
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


def targets(row: Row, smoothing: float = 0.0) -> np.ndarray:
    labels = row["labels"]
    own = np.eye(3)[labels] if labels.ndim == 1 else labels.astype(np.float64)
    return own * (1 - smoothing) + smoothing / 3


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def losses(row: Row, head: str = "main", smoothing: float = 0.0) -> np.ndarray:
    return -(targets(row, smoothing) * log_softmax(row[f"logits/{head}"])).sum(axis=1)


def bias_gradient(row: Row, smoothing: float = 0.0, weights: Any = 1.0) -> np.ndarray:
    """Of the classifier's bias: the mean of softmax minus target."""
    difference = np.exp(log_softmax(row["logits/main"])) - targets(row, smoothing)
    return (difference * np.reshape(weights, (-1, 1))).mean(axis=0)


@pytest.mark.parametrize("name", ROWS)
def test_the_engines_take_the_same_steps(rows, name):
    tensorflow, jax = (rows[backend][name] for backend in BACKENDS)
    # bfloat16 keeps 8 bits, and the two round at different places.
    tolerance = 0.05 if name == "bfloat16" else 1e-5
    assert_allclose(jax["labels"], tensorflow["labels"], rtol=0, atol=0)
    assert_allclose(jax["metrics"][0], tensorflow["metrics"][0], rtol=tolerance, atol=tolerance)
    for path, values in part(tensorflow, "after_1").items():
        assert_allclose(jax[f"after_1/{path}"], values, rtol=0, atol=tolerance, err_msg=path)
    # A step from a gap of 30 goes so far that the next ones depend on its rounding.
    if name not in ("bfloat16", "gap_of_30"):
        assert_allclose(jax["metrics"], tensorflow["metrics"], rtol=1e-5, atol=1e-5)
        for path, values in part(tensorflow, f"after_{STEPS}").items():
            assert_allclose(jax[f"after_{STEPS}/{path}"], values, atol=1e-5, err_msg=path)


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

    @pytest.mark.parametrize("name", ["plain", "micro_batches", "mixup"])
    def test_the_gradient_is_softmax_minus_target(self, rows, backend, name):
        row = rows[backend][name]
        assert_allclose(gradients(row)[BIAS], bias_gradient(row), atol=1e-5)

    def test_ten_steps_are_ten(self, rows, backend):
        row = rows[backend]["plain"]
        assert len(row["metrics"]) == STEPS
        assert np.abs(row[f"after_{STEPS}/{BIAS}"] - row[f"after_1/{BIAS}"]).max() > 0.01

    def test_auxiliary_heads_weigh_three_tenths(self, rows, backend):
        row = rows[backend]["aux"]
        expected = losses(row).mean() + 0.3 * losses(row, "aux_1").mean()
        assert row["metrics"][0, 0] == pytest.approx(expected, rel=1e-5)
        difference = np.exp(log_softmax(row["logits/aux_1"])) - targets(row)
        assert_allclose(gradients(row)["aux_1_logits/bias"], 0.3 * difference.mean(0), atol=1e-5)

    def test_clipping_shortens_the_gradient_to_its_norm(self, rows, backend):
        plain, clipped = (gradients(rows[backend][name]) for name in ("plain", "clipping"))
        norm = np.sqrt(sum((values.astype(np.float64) ** 2).sum() for values in plain.values()))
        assert norm > 0.1
        for path, values in plain.items():
            assert_allclose(clipped[path], values * 0.05 / norm, atol=1e-6, err_msg=path)

    def test_smoothing(self, rows, backend):
        row = rows[backend]["smoothing"]
        assert row["metrics"][0, 0] == pytest.approx(losses(row, smoothing=0.3).mean(), rel=1e-5)
        assert_allclose(gradients(row)[BIAS], bias_gradient(row, smoothing=0.3), atol=1e-5)

    def test_mixed_labels_are_soft(self, rows, backend):
        row = rows[backend]["mixup"]
        assert ((row["labels"] > 0.05) & (row["labels"] < 0.95)).any()
        assert row["metrics"][0, 0] == pytest.approx(losses(row).mean(), rel=1e-5)

    def test_class_weights_are_factors_of_the_images_losses(self, rows, backend):
        row = rows[backend]["class_weights"]
        weights = np.array(CLASS_WEIGHTS)[row["labels"]]
        assert row["metrics"][0, 0] == pytest.approx((weights * losses(row)).mean(), rel=1e-5)
        assert_allclose(gradients(row)[BIAS], bias_gradient(row, weights=weights), atol=1e-5)

    def test_frozen_layers_keep_their_weights_and_the_others_learn_as_before(self, rows, backend):
        plain, frozen = (gradients(rows[backend][name]) for name in ("plain", "frozen"))
        for path, values in plain.items():
            expected = 0 * values if path.startswith("conv1") else values
            assert_allclose(frozen[path], expected, atol=1e-6, err_msg=path)

    def test_micro_batches_have_the_gradient_of_the_whole(self, rows, backend):
        plain, parts = (gradients(rows[backend][name]) for name in ("plain", "micro_batches"))
        for path, values in plain.items():
            assert_allclose(parts[path], values, atol=1e-6, err_msg=path)

    def test_weight_decay_is_for_kernels(self, rows, backend):
        plain, decayed = (gradients(rows[backend][name]) for name in ("plain", "weight_decay"))
        before = part(rows[backend]["plain"], "before")
        for path, values in plain.items():
            extra = 0.1 * before[path] if path.endswith("kernel") else 0
            # Keras lets weights decay first, and applies the same gradient after it.
            assert_allclose(decayed[path], values + extra, atol=1e-5, err_msg=path)

    def test_biases_learn_at_their_rate(self, rows, backend):
        plain, doubled = (gradients(rows[backend][name]) for name in ("plain", "bias_rate"))
        for path, values in plain.items():
            factor = 2 if path.endswith("bias") else 1
            assert_allclose(doubled[path], factor * values, atol=1e-6, err_msg=path)

    def test_batch_norm_takes_in_the_batchs_statistics(self, rows, backend):
        """Momentum .9 from a mean of 0: a tenth of the batch's."""
        row = rows[backend]["batch_norm"]
        moved = row["after_1/conv1_bn/moving_mean"]
        assert np.abs(moved).max() > 1e-3
        assert_allclose(row["before/conv1_bn/moving_mean"], 0)

    def test_a_wrong_answer_by_30_logits_costs_30_and_has_a_gradient(self, rows, backend):
        row = rows[backend]["gap_of_30"]
        wrong = (row["labels"] != 0).mean()
        assert 0 < wrong < 1
        assert row["metrics"][0, 0] == pytest.approx(30 * wrong, rel=1e-6)
        shares = np.bincount(row["labels"], minlength=3) / len(row["labels"])
        assert_allclose(gradients(row)[BIAS], [1 - shares[0], -shares[1], -shares[2]], atol=1e-5)

    def test_bfloat16_has_weights_and_losses_in_float32(self, rows, backend):
        row = rows[backend]["bfloat16"]
        assert {values.dtype for values in part(row, "after_1").values()} == {np.dtype("float32")}
        loss = row["metrics"][0, 0]
        assert loss != np.float32(loss).view(np.uint32) & 0xFFFF0000  # more than bfloat16's bits
        assert_allclose(gradients(row)[BIAS], bias_gradient(row), atol=2e-2)
