"""Correlation statistics against direct computation, and detection of planted structure."""

import itertools

import numpy as np
import pytest

from keras_inception.design import clusters as clusters_room
from keras_inception.design import dimension as dimension_room
from keras_inception.design.clusters import cluster_units
from keras_inception.design.dimension import (
    effective_dimension,
    patch_dimension,
    pooled_activations,
)
from keras_inception.design.statistics import OffsetStatistics, correlation_decay, shuffled

CORNERS_AND_CENTRE = [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)]


def statistics_of(activations, radius=4):
    statistics = OffsetStatistics(activations.shape[-1], radius)
    statistics.update(activations)
    return statistics


def directly(activations, dy, dx):
    """Every pair of positions at an offset: (channels at the first, channels at the second)."""
    images, height, width, _ = activations.shape
    pairs = [
        (activations[n, y, x], activations[n, y + dy, x + dx])
        for n, y, x in itertools.product(range(images), range(height), range(width))
        if 0 <= y + dy < height and 0 <= x + dx < width
    ]
    return np.array(pairs).transpose(1, 2, 0)  # sides x channels x pairs


@pytest.fixture
def coloured():
    """Activations with structure over positions and channels, and a mean far from 0."""
    noise = np.random.default_rng(1).normal(size=(3, 5, 6, 4))
    noise[:, 1:, :, 1] += noise[:, :-1, :, 0]
    noise[:, :, :-2, 2] -= noise[:, :, 2:, 0]
    return (noise + np.array([5.0, -3.0, 0.0, 100.0])).astype(np.float32)


class TestOffsetStatistics:
    @pytest.mark.parametrize("offset", [(0, 0), (0, 1), (1, -2), (-1, 2), (-2, -2), (2, 0)])
    def test_correlation_and_covariance_are_the_direct_ones(self, coloured, offset):
        statistics = statistics_of(coloured, radius=2)
        first, second = directly(coloured.astype(np.float64), *offset)
        # NumPy: rows are variables, first the channels of the first side, then of the second.
        expected = np.corrcoef(first, second)[:4, 4:]
        np.testing.assert_allclose(statistics.correlation(*offset), expected, atol=1e-10)
        expected = np.cov(first, second, bias=True)[:4, 4:]
        np.testing.assert_allclose(statistics.covariance(*offset), expected, atol=1e-9)
        assert statistics.count(*offset) == first.shape[1]

    def test_a_shifted_copy_correlates_fully_only_at_its_offset(self):
        noise = np.random.default_rng(2).normal(size=(40, 9, 9, 1))
        # Channel 1 at (y + 1, x - 2) is channel 0 at (y, x).
        copied = np.concatenate([noise, np.roll(noise, (1, -2), axis=(1, 2))], axis=3)
        statistics = statistics_of(copied[:, 1:, :-2], radius=2)
        strength = {at: statistics.correlation(*at)[0, 1] for at in statistics.offsets}
        assert strength.pop((1, -2)) == pytest.approx(1)
        assert np.abs(list(strength.values())).max() < 0.1
        assert statistics.correlation(-1, 2)[1, 0] == pytest.approx(1)

    def test_order_and_batching_do_not_matter(self, coloured):
        at_once = statistics_of(coloured, radius=2)
        one_by_one, other = OffsetStatistics(4, 2), OffsetStatistics(4, 2)
        one_by_one.update(coloured[2:])
        other.update(coloured[1:2])
        other.update(coloured[:1])
        one_by_one.merge(other)
        for offset in at_once.offsets:
            assert one_by_one.count(*offset) == at_once.count(*offset)
            np.testing.assert_allclose(
                one_by_one.correlation(*offset), at_once.correlation(*offset), atol=1e-12
            )

    @pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 123.456, -1e6 / 7])
    def test_a_constant_channel_correlates_with_nothing(self, coloured, constant):
        coloured = coloured.astype(np.float64)  # the squares of 1 / 3 are rounded
        coloured[..., 1] = constant
        correlation = statistics_of(coloured, radius=1).correlation(0, 0)
        np.testing.assert_allclose(correlation.diagonal(), [1, 0, 1, 1])
        assert not correlation[1].any()
        assert not correlation[:, 1].any()

    def test_an_offset_outside_the_grid_has_no_observations(self):
        statistics = statistics_of(np.random.default_rng(0).normal(size=(5, 2, 2, 3)))
        assert statistics.count(0, 0) == 20
        assert statistics.count(2, 0) == statistics.count(1, -3) == 0
        assert not statistics.correlation(-2, 0).any()

    def test_memory_does_not_grow_with_images(self, coloured):
        statistics = statistics_of(coloured, radius=2)
        before = {name: np.shape(value) for name, value in vars(statistics).items()}
        statistics.update(np.repeat(coloured, 50, axis=0))
        assert {name: np.shape(value) for name, value in vars(statistics).items()} == before
        # 13 of 25 offsets.
        assert vars(statistics)["_products"].shape == (13, 4, 4)

    def test_refusals(self, coloured):
        statistics = statistics_of(coloured, radius=1)
        with pytest.raises(ValueError, match=r"shape N x h x w x 4.*shape=\(3, 5, 6, 3\)"):
            statistics.update(coloured[..., :3])
        with pytest.raises(ValueError, match="finite"):
            statistics.update(np.full((1, 2, 2, 4), np.nan))
        with pytest.raises(ValueError, match=r"radius 1\. Received: \(0, 2\)"):
            statistics.correlation(0, 2)
        with pytest.raises(ValueError, match="radius=2"):
            statistics.merge(OffsetStatistics(4, 2))
        with pytest.raises(ValueError, match="channels=0"):
            OffsetStatistics(0, 1)


class TestSignificance:
    def test_in_noise_each_channel_correlates_only_with_itself(self):
        noise = np.random.default_rng(3).normal(size=(30, 8, 8, 12))
        found = statistics_of(noise).significant_correlation()
        np.testing.assert_allclose(found.pop((0, 0)), np.eye(12), atol=1e-6)
        assert not any(strength.any() for strength in found.values())

    def test_a_weak_correlation_is_found_with_enough_positions(self):
        generator = np.random.default_rng(4)
        few, many = ((40, 8, 8, 2), (400, 8, 8, 2))
        for shape, seen in ((few, False), (many, True)):
            noise = generator.normal(size=shape)
            noise[..., 1] += 0.05 * noise[..., 0]  # a correlation of .05; 1/sqrt(n): .02 and .006
            found = statistics_of(noise, radius=1).significant_correlation()
            assert bool(found[0, 0][0, 1]) is seen

    def test_smooth_independent_channels_are_not_correlated(self):
        # Each row has one value, so 8 x 8 positions are 8 independent ones. If all 64 counted as
        # independent, some of these 20 x 20 pairs would pass.
        rows = np.random.default_rng(5).normal(size=(30, 8, 1, 20))
        found = statistics_of(np.repeat(rows, 8, axis=2), radius=4).significant_correlation()
        assert not (found[0, 0] - np.diag(found[0, 0].diagonal())).any()


def planted(groups, *, images=60, grid=12, noise=0.3, seed=0, order=None):
    """White latents, one per group, each seen by a channel at every offset of its group.

    Channels of a group correlate by 1 / (1 + noise^2) where their offsets meet, by 0 elsewhere.
    The channels of the groups are shuffled.
    """
    generator = np.random.default_rng(seed)
    channels = []
    for offsets in groups:
        latent = generator.normal(size=(images, grid + 6, grid + 6))
        for dy, dx in offsets:  # the latent at a position is seen at (dy, dx) from it
            seen = latent[:, 6 - dy : 6 - dy + grid, 6 - dx : 6 - dx + grid]
            channels.append(seen + noise * generator.normal(size=seen.shape))
    if order is None:
        order = generator.permutation(len(channels))
    return np.stack(channels, axis=-1)[..., order]


SPREAD = {
    1: [(0, 0)] * 4,
    3: CORNERS_AND_CENTRE,
    5: [(2 * y, 2 * x) for y, x in CORNERS_AND_CENTRE],
    7: [(3 * y, 3 * x) for y, x in CORNERS_AND_CENTRE],
}


class TestClusters:
    @pytest.mark.parametrize(
        ("ones", "threes", "fives"), [(4, 2, 1), (1, 1, 1), (0, 3, 2), (5, 0, 0), (0, 0, 2)]
    )
    def test_planted_clusters_are_counted_by_extent(self, ones, threes, fives):
        groups = [SPREAD[1]] * ones + [SPREAD[3]] * threes + [SPREAD[5]] * fives
        found = cluster_units(statistics_of(planted(groups)), 5)
        assert found.counts((1, 3, 5)) == pytest.approx({1: ones, 3: threes, 5: fives})
        total = ones + threes + fives
        expected = {1: ones / total, 3: threes / total, 5: fives / total}
        assert found.shares((5, 1, 3)) == pytest.approx(expected)

    def test_the_channels_of_a_cluster_and_their_offsets_are_the_planted_ones(self):
        order = [3, 9, 0, 7, 1, 5, 8, 2, 6, 4]
        activations = planted([SPREAD[3], SPREAD[5]], order=order)
        offsets_by_channel = [(SPREAD[3] + SPREAD[5])[number] for number in order]
        found = cluster_units(statistics_of(activations), 5)
        assert sorted(cluster.extent for cluster in found.clusters) == [3, 5]
        for cluster in found.clusters:
            # The copy may be anywhere in the patch: count from its corner.
            offsets = (cluster.offsets - cluster.offsets.min(axis=0)).tolist()
            at = {c: tuple(o) for c, o in zip(cluster.channels.tolist(), offsets, strict=True)}
            planted_here = {
                channel: offset
                for channel, offset in enumerate(offsets_by_channel)
                if (order[channel] < 5) is (cluster.extent == 3)
            }
            assert at == planted_here

    def test_kernels_are_data(self):
        statistics = statistics_of(planted([SPREAD[1], SPREAD[3], SPREAD[7]], grid=14), radius=6)
        found = cluster_units(statistics, 7)
        assert found.counts((1, 3, 7)) == pytest.approx({1: 1, 3: 1, 7: 1})
        assert found.counts((1, 5, 7)) == pytest.approx({1: 1, 5: 1, 7: 1})
        assert found.counts((1, 3)) == pytest.approx({1: 1, 3: 2})  # the largest takes the rest

    def test_a_side_of_two_needs_a_kernel_of_three(self):
        found = cluster_units(statistics_of(planted([[(0, 0), (0, 1), (1, 0)]])), 5)
        assert [cluster.extent for cluster in found.clusters] == [2]
        assert found.counts((1, 3, 5)) == pytest.approx({1: 0, 3: 1, 5: 0})

    def test_opposite_signs_are_one_group(self):
        activations = planted([SPREAD[3]])
        activations[..., 0] *= -1
        found = cluster_units(statistics_of(activations), 5)
        assert found.counts((1, 3, 5)) == pytest.approx({1: 0, 3: 1, 5: 0})

    def test_nine_in_ten_units_must_be_covered(self):
        near, far = [(0, 0)] * 19, [(0, 2)]
        statistics = statistics_of(planted([near + far], grid=8, images=20))
        assert [cluster.extent for cluster in cluster_units(statistics, 3).clusters] == [1]
        statistics = statistics_of(planted([near + far * 3], grid=8, images=20))
        assert [cluster.extent for cluster in cluster_units(statistics, 3).clusters] == [3]

    def test_a_chain_of_correlations_is_not_one_group(self):
        # Two pairs of r = .6, joined by one of .5: the average between the pairs is .125.
        mixed = np.linalg.cholesky(
            np.eye(4) + np.diag([0.6, 0.5, 0.6], 1) + np.diag([0.6, 0.5, 0.6], -1)
        )
        noise = np.random.default_rng(9).normal(size=(80, 8, 8, 4)) @ mixed.T
        found = cluster_units(statistics_of(noise), 3, threshold=0.4)
        assert found.counts((1, 3)) == pytest.approx({1: 2, 3: 0})

    def test_a_channel_of_two_groups_belongs_to_the_larger_one(self):
        generator = np.random.default_rng(10)
        few, many = generator.normal(size=(2, 90, 12, 13))
        groups = [few[..., :-1]] * 3 + [many[..., :-1]] * 5
        groups = [seen + 0.1 * generator.normal(size=seen.shape) for seen in groups]
        both = few[..., :-1] + 1.3 * many[..., 1:]  # r = .61 with the few, .79 with the many
        found = cluster_units(statistics_of(np.stack([*groups, both], axis=-1)), 5, threshold=0.5)
        # Where the many are outside the patch it belongs to the few: 3 of 4 channels are read
        # there.
        assert found.counts((1, 3, 5)) == pytest.approx({1: 3 / 4, 3: 1, 5: 0})

    def test_the_threshold_defines_high_correlation(self):
        statistics = statistics_of(planted([SPREAD[3]], noise=1.0))  # r = 1 / 2
        together = cluster_units(statistics, 5, threshold=0.4)
        apart = cluster_units(statistics, 5, threshold=0.6)
        assert together.counts((1, 3, 5)) == pytest.approx({1: 0, 3: 1, 5: 0})
        assert apart.counts((1, 3, 5)) == pytest.approx({1: 5, 3: 0, 5: 0})

    def test_shuffled_activations_have_no_spatial_structure(self):
        activations = planted([SPREAD[3]] * 3 + [SPREAD[5]] * 2)
        statistics = statistics_of(shuffled(activations, seed=0))
        # Even at the threshold at which any significant correlation makes a cluster.
        found = cluster_units(statistics, 5, threshold=0.02)
        assert found.counts((1, 3, 5)) == {1: 25.0, 3: 0.0, 5: 0.0}
        np.testing.assert_allclose(correlation_decay(statistics).itself[1:], 0, atol=0.02)

    def test_a_smooth_channel_is_one_cluster_however_often_it_repeats(self):
        # Three channels see one smooth field: one filter type, not one per position.
        noise = np.random.default_rng(6).normal(size=(60, 14, 14, 1))
        field = sum(noise[:, y : y + 12, x : x + 12] for y in range(3) for x in range(3))
        found = cluster_units(statistics_of(np.repeat(field, 3, axis=3)), 5, threshold=0.5)
        counts = found.counts((1, 3, 5))
        assert sum(counts.values()) == pytest.approx(1)
        assert counts[1] == 0

    def test_a_subset_of_channels_represents_all(self, monkeypatch):
        statistics = statistics_of(planted([SPREAD[1]] * 6 + [SPREAD[5]] * 2))
        monkeypatch.setattr(clusters_room, "MAX_UNITS", 25 * 20)
        found = cluster_units(statistics, 5, seed=1)
        channels = np.unique(np.concatenate([cluster.channels for cluster in found.clusters]))
        assert len(channels) == 20
        again = cluster_units(statistics, 5, seed=1)
        other = cluster_units(statistics, 5, seed=2)
        picked = [np.concatenate([c.channels for c in item.clusters]) for item in (again, other)]
        assert set(picked[0]) == set(channels) != set(picked[1])
        assert found.shares((1, 5)) == pytest.approx({1: 0.75, 5: 0.25}, abs=0.05)

    def test_one_unit(self):
        found = cluster_units(statistics_of(np.random.default_rng(0).normal(size=(9, 3, 3, 1))), 1)
        assert found.counts((1,)) == {1: 1.0}

    @pytest.mark.parametrize(
        ("patch", "threshold", "message"),
        [(4, 0.5, "patch=4"), (7, 0.5, "patch=7"), (3, 1.0, "threshold=1.0")],
    )
    def test_refusals(self, patch, threshold, message):
        statistics = statistics_of(np.random.default_rng(0).normal(size=(9, 5, 5, 2)))
        with pytest.raises(ValueError, match=message):
            cluster_units(statistics, patch, threshold=threshold)


class TestDimension:
    def test_share_of_the_variance(self):
        covariance = np.diag([5.0, 3.0, 1.0, 1.0])
        assert effective_dimension(covariance, 0.5) == 1
        assert effective_dimension(covariance, 0.8) == 2
        assert effective_dimension(covariance, 0.81) == 3
        assert effective_dimension(covariance, 0.95) == 4
        assert effective_dimension(np.zeros((3, 3))) == 0

    def test_a_rotated_covariance_has_the_same_dimension(self):
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
        assert effective_dimension(turn @ np.diag([5.0, 4.6, 0.3, 0.1]) @ turn.T) == 2

    def test_white_latents_of_a_position_are_its_dimension_at_any_kernel(self):
        generator = np.random.default_rng(1)
        latents = generator.normal(size=(300, 10, 10, 3))
        mixed = latents @ np.linalg.qr(generator.normal(size=(12, 3)))[0].T
        mixed += 0.01 * generator.normal(size=mixed.shape)
        statistics = statistics_of(mixed)
        # 90% of 27 and of 75 equal eigenvalues are 25 and 68: 2.8 and 2.7 of 3 per position.
        assert patch_dimension(statistics, 1) == 3
        assert patch_dimension(statistics, 3) == pytest.approx(25 / 9, abs=1.1 / 9)
        assert patch_dimension(statistics, 5) == pytest.approx(68 / 25, abs=2.1 / 25)

    def test_constant_maps_divide_their_dimension_by_the_positions(self):
        generator = np.random.default_rng(2)
        constant = np.broadcast_to(generator.normal(size=(4000, 1, 1, 4)), (4000, 5, 5, 4))
        statistics = statistics_of(constant)
        for kernel in (1, 3, 5):
            assert patch_dimension(statistics, kernel) == pytest.approx(4 / kernel**2)

    def test_leading_components_represent_all_channels(self, monkeypatch):
        generator = np.random.default_rng(3)
        latents = generator.normal(size=(200, 11, 11, 4))
        latents = latents[:, 1:, 1:] + latents[:, :-1, :-1]
        mixed = latents @ generator.normal(size=(4, 20))
        statistics = statistics_of(mixed, radius=2)
        whole = patch_dimension(statistics, 3)
        monkeypatch.setattr(dimension_room, "MAX_UNITS", 6 * 9)  # 6 of the 20, of which 4 vary
        assert patch_dimension(statistics, 3) == pytest.approx(whole)
        monkeypatch.setattr(dimension_room, "MAX_UNITS", 2 * 9)
        assert patch_dimension(statistics, 3) == pytest.approx(whole, rel=0.35)

    def test_zero_variance_has_dimension_zero(self):
        assert patch_dimension(statistics_of(np.ones((4, 5, 5, 2))), 3) == 0

    def test_pooled_map(self):
        activations = np.full((1, 3, 4, 2), -9.0)
        activations[0, 0, 0] = [1, -2]
        pooled = pooled_activations(activations)
        near = np.zeros((3, 4), dtype=bool)
        near[:2, :2] = True
        np.testing.assert_array_equal(pooled[0, ..., 0], np.where(near, 1, -9))
        np.testing.assert_array_equal(pooled[0, ..., 1], np.where(near, -2, -9))


def test_decay_of_a_box_filtered_field():
    # A 3 x 3 box over white noise overlaps by 6/9 at (0, 1), 4/9 at (1, 1), 3/9 at (0, 2), 2/9 at
    # (1, 2), 1/9 at (2, 2), and not at all further away.
    noise = np.random.default_rng(8).normal(size=(900, 12, 12, 1))
    field = sum(noise[:, y : y + 10, x : x + 10] for y in range(3) for x in range(3))
    decay = correlation_decay(statistics_of(field))
    ring_1 = (4 * 6 + 4 * 4) / 8 / 9
    ring_2 = (4 * 3 + 8 * 2 + 4 * 1) / 16 / 9
    np.testing.assert_allclose(decay.itself, [1, ring_1, ring_2, 0, 0], atol=0.02)
    assert not decay.strongest.any()


def test_decay_to_the_strongest_other_channel():
    decay = correlation_decay(statistics_of(planted([SPREAD[1]], noise=0.5, images=400)))
    np.testing.assert_allclose(decay.strongest, [1 / 1.25, 0, 0, 0, 0], atol=0.03)


def test_shuffling_keeps_every_channels_values_and_breaks_positions():
    activations = np.arange(2 * 3 * 3 * 2).reshape(2, 3, 3, 2)
    mixed = shuffled(activations, seed=0)
    assert mixed.shape == activations.shape
    for channel in range(2):
        before, after = activations[..., channel].ravel(), mixed[..., channel].ravel()
        assert sorted(after) == sorted(before)
        assert (after != before).any()
    assert (mixed[..., 1] - mixed[..., 0] != 1).any()  # each channel separately
    np.testing.assert_array_equal(mixed, shuffled(activations, seed=0))
