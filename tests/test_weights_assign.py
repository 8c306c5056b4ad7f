"""Strict assignment, this package's own files, the choice of reader: all on a tiny network."""

import zipfile

import keras
import numpy as np
import pytest
from conftest import tiny_spec
from numpy.testing import assert_array_equal

from keras_inception import GoogLeNet, model_preprocessing
from keras_inception.network.build import build_network
from keras_inception.weights.assign import assign
from keras_inception.weights.readers import read_source

SPEC = tiny_spec(norm="bn", aux=True)


def _model(**changes):
    model = GoogLeNet(weights=None, spec=SPEC, auxiliary=True, **changes)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def _arrays(model) -> dict[str, np.ndarray]:
    return {weight.path: np.array(weight) for weight in model.weights}


def test_assign_sets_every_weight():
    source, target = _model(), build_network(SPEC, auxiliary=True)
    assign(target, _arrays(source))
    for left, right in zip(source.get_weights(), target.get_weights(), strict=True):
        assert_array_equal(left, right)


def test_nothing_is_assigned_unless_everything_fits():
    arrays = _arrays(_model())
    del arrays["conv2_conv/kernel"]
    arrays["3a_1x1_bn/beta"] = np.zeros(9)
    arrays["stray/kernel"] = np.zeros((1, 2))
    target = build_network(SPEC, auxiliary=True)
    before = target.get_weights()
    with pytest.raises(ValueError, match="Nothing was assigned") as refused:
        assign(target, arrays)
    lines = str(refused.value).splitlines()
    assert " - conv2_conv/kernel (3, 3, 4, 6)" in lines
    assert " - 3a_1x1_bn/beta (2,)" in lines
    assert " + 3a_1x1_bn/beta (9,)" in lines
    assert " + stray/kernel (1, 2)" in lines
    assert sum(line.startswith((" - ", " + ")) for line in lines) == 4
    for left, right in zip(before, target.get_weights(), strict=True):
        assert_array_equal(left, right)


def test_a_long_list_is_truncated():
    with pytest.raises(ValueError, match=r"\.\.\. and \d+ more"):
        assign(build_network(SPEC), {})


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_our_own_files_without_the_heads_or_the_top(tmp_path, suffix):
    model = _model()
    model.compile("adam")  # the optimizer's state is in the .keras file too
    path = tmp_path / f"saved{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    arrays = _arrays(model)
    assert read_source(path).arrays.keys() == arrays.keys()
    inference = GoogLeNet(weights=path, spec=SPEC)
    features = GoogLeNet(weights=path, spec=SPEC, include_top=False)
    for loaded, heads in ((inference, 1), (features, 0)):
        for weight in loaded.weights:
            assert_array_equal(np.array(weight), arrays[weight.path])
        assert sum(weight.path == "predictions_logits/bias" for weight in loaded.weights) == heads


def test_the_convention_is_saved_with_the_model(tmp_path):
    model = GoogLeNet(weights=None, variant="paper", input_shape=(64, 64, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert model_preprocessing(loaded) == "caffe"


def test_a_file_without_layer_names(tmp_path):
    import h5py

    path = tmp_path / "old.weights.h5"
    _model().save_weights(path)
    with h5py.File(path, "a") as file:
        del file["layers/conv2d/vars"].attrs["name"]
    with pytest.raises(ValueError, match="Expected layers with names"):
        read_source(path)


def test_a_keras_file_without_weights(tmp_path):
    path = tmp_path / "empty.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"Expected a `\.weights\.h5` or `\.keras` file"):
        read_source(path)


def test_a_spec_of_other_modules_cannot_take_foreign_weights(tmp_path):
    from keras_inception.weights import caffe, inception5h, slim, torchvision

    for reader in (caffe, inception5h, slim, torchvision):
        with pytest.raises(ValueError, match="GoogLeNet's stem and modules"):
            reader.name_map(tiny_spec(kernels=(3,)))


@pytest.mark.parametrize("name", ["weights.bin", "model.h5", "ImageNet"])
def test_an_unknown_format(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"a known format: .*\.caffemodel.*Received"):
        read_source(tmp_path / name)
    with pytest.raises(ValueError, match="which is not there"):
        read_source(tmp_path / f"no-{name}")
