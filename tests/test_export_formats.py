"""The other formats, each run in its own runtime, and the job that writes, times and selects."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import lean_spec, tiny_spec

from keras_inception.data.record import write_record
from keras_inception.data.sample import load_sample
from keras_inception.data.sources import open_data
from keras_inception.exporters import job
from keras_inception.exporters.calibration import (
    Images,
    data_images,
    folder_images,
    recorded_images,
)
from keras_inception.exporters.formats import FORMATS, require_packages, write_format
from keras_inception.exporters.instructions import int8_instructions
from keras_inception.exporters.job import RefusedFormatsError, export
from keras_inception.exporters.saved_model import export_saved_model, write_saved_model
from keras_inception.network.build import build_network
from keras_inception.packages import MissingPackageError
from keras_inception.runtimes.load import load_network

LABELS = ("a", "b", "c", "d", "e")
NEEDS = {
    "onnx": "tf2onnx",
    "onnx-int8": "tf2onnx",
    "openvino": "openvino",
    "openvino-bfloat16": "openvino",
    "openvino-int8": "nncf",
}


def network(norm: str = "lrn") -> keras.Model:
    """An LRN network with one clear first class per image."""
    keras.utils.set_random_seed(1)
    model = build_network(tiny_spec(norm=norm))
    logits = model.get_layer("predictions_logits")
    kernel, bias = logits.get_weights()
    logits.set_weights([kernel * 8, bias])
    return model


@pytest.fixture(scope="module")
def images() -> Images:
    return data_images(load_sample(), (32, 32, 3), None)


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_the_model_s_scores(kind: str, images: Images, tmp_path: Path) -> None:
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    model = network("bn" if kind == "litert-uint8" else "lrn")

    rows = export(model, tmp_path / "out", [kind], images=images, labels=LABELS)

    assert [row.kind for row in rows] == ["keras", kind]
    loaded = load_network(rows[1].path)
    assert (loaded.input_shape, loaded.labels) == ((32, 32, 3), LABELS)
    expected = model.predict_on_batch(images.check[:40] / np.float32(127.5) - 1)
    received = loaded.scores(images.check[:40].astype(np.float32))
    exact = kind in ("saved_model", "onnx", "openvino", "litert")
    np.testing.assert_allclose(received, expected, atol=1e-5 if exact else 0.1)
    assert np.mean(received.argmax(1) == expected.argmax(1)) >= 0.95
    one = loaded.scores(images.check[:1].astype(np.float32))  # another batch size
    np.testing.assert_allclose(one, received[:1], atol=1e-5 if exact else 0.02)
    assert loaded.scores(images.check[:0].astype(np.float32)).shape == (0, 5)
    assert rows[1].size == sum(
        file.stat().st_size
        for file in (tmp_path / "out").rglob("*")
        if file.is_file()
        and file not in {tmp_path / "out" / n for n in ("labels.txt", "README.md")}
    )


@pytest.mark.parametrize("kind", ["saved_model", "litert"])
def test_merged_branches_are_written(kind: str, images: Images, tmp_path: Path) -> None:
    """The file is larger by the zeros around smaller kernels, and is checked like any export."""
    model = build_network(lean_spec())
    sizes = [
        export(model, tmp_path / str(merge), [kind], images=images, merge=merge)[1].size
        for merge in (False, True)
    ]
    assert sizes[1] > sizes[0]


def test_fastest_keeps_the_format_with_the_lowest_latency(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "keras_inception.exporters.job._interleaved_times",
        lambda runs, image: {"keras": 1.0, "litert": 9.0, "litert-float16": 5.0},
    )

    rows = export(
        network(),
        tmp_path / "out",
        ["litert", "litert-float16"],
        images=images,
        fastest=True,
    )

    kept = {row.kind: row.path for row in rows}
    assert kept == {
        "keras": None,
        "litert": None,
        "litert-float16": tmp_path / "out" / "model_float16.tflite",
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "model_float16.tflite",
    }


def test_fastest_skips_formats_that_do_not_agree(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "keras_inception.exporters.job._interleaved_times",
        lambda runs, image: {"keras": 1.0, "litert": 9.0, "litert-float16": 5.0},
    )

    def write(
        model: keras.Model, path: Path, kind: str, *, calibration: np.ndarray, labels: None
    ) -> None:
        other = network()
        if kind == "litert-float16":
            other.set_weights([weight * -1 for weight in model.get_weights()])
        write_format(other, path, kind, calibration=calibration)

    monkeypatch.setattr("keras_inception.exporters.job.write_format", write)
    rows = export(
        network(), tmp_path / "out", ["litert", "litert-float16"], images=images, fastest=True
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "model.tflite"}
    assert rows[2].path is None
    assert rows[2].agreement.same_first < 0.99


@pytest.mark.parametrize(
    ("step", "merge"), [("formats.fold_batch_norm", False), ("job.merge_parallel_convs", True)]
)
def test_a_format_that_differs_is_refused_and_removed(
    step: str, merge: bool, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: keras.Model) -> keras.Model:
        other = network()
        other.set_weights([weight * 0.9 for weight in model.get_weights()])
        return other

    monkeypatch.setattr(f"keras_inception.exporters.{step}", wrong)
    with pytest.raises(ValueError, match="litert: expected scores within 1e-05"):
        export(network(), tmp_path / "out", ["litert"], images=images, merge=merge)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = r"'onnxruntime'. It is not installed: pip install \"keras-inception\[onnx\]\""
    with pytest.raises(MissingPackageError, match=message):
        require_packages("onnx")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a format among saved_model, .* Received: 'x'"):
        require_packages("x")  # type: ignore[arg-type]


def test_a_model_that_is_not_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"Expected a run's folder.*Received: .*notes.txt"):
        load_network(tmp_path / "notes.txt")


def test_images_of_a_data_set_are_spread_and_have_labels_for_its_own_classes() -> None:
    data = load_sample()
    step = len(data.test) // 500
    assert len(data.test) == 500 * step

    own = data_images(data, (28, 28, 1), data.class_names)

    np.testing.assert_array_equal(own.check, data.test.images[::step])
    np.testing.assert_array_equal(own.truth, data.test.labels[::step])
    assert data_images(data, (28, 28, 1), LABELS).truth is None
    in_colour = data_images(data, (28, 28, 3), LABELS).check
    np.testing.assert_array_equal(in_colour, own.check.repeat(3, axis=3))


def class_folders(root: Path, count: int) -> Path:
    """Two classes of one level each, from 0 and from 100 on."""
    for index, label in enumerate(LABELS[:2]):
        (root / label).mkdir(parents=True)
        for number in range(count):
            keras.utils.save_img(
                root / label / f"{number}.png",
                np.full((9, 9, 3), index * 100 + number, np.uint8),
                scale=False,
            )
    return root


def test_an_export_is_checked_on_the_recorded_data(tmp_path: Path) -> None:
    data = open_data(f"dir:{class_folders(tmp_path / 'data', 5)}")
    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run", data)

    found = recorded_images(tmp_path / "run", (4, 4, 3), LABELS[:2])

    assert found.check.shape == (2, 4, 4, 3)  # a fifth of five images of each class
    assert [int(image.max()) // 100 for image in found.check] == [0, 1]
    assert found.truth is not None
    assert found.truth.tolist() == [0, 1]
    assert len(found.calibration) == 8
    shutil.rmtree(tmp_path / "data")
    for folder in (tmp_path / "run", tmp_path, None):  # the data are gone, or were never recorded
        assert len(recorded_images(folder, (4, 4, 3), None).check) == 500


def test_folders_named_after_classes_give_the_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, 3)

    found = folder_images(tmp_path, (4, 4, 3), LABELS)

    assert found.truth is not None
    assert found.check.shape == (6, 4, 4, 3)
    for image, label in zip(found.check, found.truth, strict=True):
        assert image.max() // 100 == label
    assert folder_images(tmp_path, (4, 4, 3), ["x", "y"]).truth is None
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="without any"):
        folder_images(tmp_path / "nothing", (4, 4, 3), None)


def disagreeing(model: keras.Model, path: Path, **others: object) -> None:
    """A writer that writes another network than the given one."""
    other = network()
    other.set_weights([weight * -1 for weight in model.get_weights()])
    write_saved_model(other, path, **others)  # type: ignore[arg-type]


def test_fastest_skips_a_saved_model_that_does_not_agree(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras_inception.exporters.job.write_saved_model", disagreeing)
    monkeypatch.setattr(
        "keras_inception.exporters.job._interleaved_times",
        lambda runs, image: {"keras": 3.0, "saved_model-bfloat16": 1.0, "litert": 2.0},
    )
    rows = export(
        network(), tmp_path / "out", ["saved_model-bfloat16", "litert"], images=images, fastest=True
    )
    assert [row.path for row in rows] == [None, None, tmp_path / "out" / "model.tflite"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "model.tflite"}


def test_a_refusal_lists_the_kept_formats(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras_inception.exporters.job.write_saved_model", disagreeing)
    with pytest.raises(RefusedFormatsError, match=r"out': litert\.$") as refused:
        export(
            network(),
            tmp_path / "out",
            ["saved_model", "saved_model-bfloat16", "litert"],
            images=images,
        )
    message = str(refused.value)
    assert "saved_model: expected" in message
    assert "saved_model-bfloat16: expected" in message
    assert [(row.kind, row.path) for row in refused.value.rows] == [
        ("keras", None),
        ("saved_model", None),
        ("saved_model-bfloat16", None),
        ("litert", tmp_path / "out" / "model.tflite"),
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "model.tflite"}


@pytest.mark.parametrize("error", [ValueError("no such endpoint"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_no_files_and_can_be_repeated(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as context:
        context.setattr("keras_inception.exporters.job._table", fail)
        with pytest.raises(type(error)):
            export(network(), tmp_path, ["litert"], images=images, labels=LABELS)
    assert not any(tmp_path.iterdir())
    export(network(), tmp_path, ["litert"], images=images, labels=LABELS)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "labels.txt", "model.tflite"}


@pytest.mark.parametrize("name", ["torn.onnx", "torn.xml", "torn.tflite", "saved_model"])
def test_a_truncated_file_of_another_runtime_is_one_error(tmp_path: Path, name: str) -> None:
    if name.endswith((".onnx", ".xml")):
        pytest.importorskip("onnxruntime" if name.endswith(".onnx") else "openvino")
    path = tmp_path / name
    if name == "saved_model":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x08\x01\x12")
    else:
        path.write_bytes(b"<net name='x'" if name.endswith(".xml") else b"\x08\x01\x12")
    with pytest.raises(ValueError, match=f"Expected a whole model.*{name}"):
        load_network(path)


def test_another_backend_is_refused(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for refused in (
        lambda: export(network(), tmp_path / "x", ["litert"], images=images),
        lambda: export_saved_model(network(), tmp_path / "x", samples=images.check[:2]),
    ):
        with pytest.raises(ValueError, match="Expected KERAS_BACKEND=tensorflow"):
            refused()
    assert not any(tmp_path.iterdir())


def test_onnx_names_its_axes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    write_format(network(), tmp_path / "model.onnx", "onnx", calibration=np.zeros((0, 32, 32, 3)))
    written = onnx.load(tmp_path / "model.onnx")
    (source,), (target,) = written.graph.input, written.graph.output
    assert (source.name, target.name) == ("pixels", "scores")
    shapes = [
        [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim]
        for tensor in (source, target)
    ]
    assert shapes == [["batch", 32, 32, 3], ["batch", 5]]
    assert {item.domain: item.version for item in written.opset_import}[""] == 15


@pytest.mark.parametrize("convention", ["caffe", "torch"])
def test_a_network_with_its_pixels_inside_is_written(
    convention: str, images: Images, tmp_path: Path
) -> None:
    pytest.importorskip("tf2onnx")
    keras.utils.set_random_seed(1)
    spec = replace(tiny_spec(), pixels=convention)
    model = build_network(spec, include_preprocessing=True)
    (_, row) = export(model, tmp_path / "out", ["onnx"], images=images)
    assert row.path == tmp_path / "out" / "model.onnx"  # equal to 1e-5, else it is refused


def quantized_convolutions(path: Path) -> tuple[int, int]:
    """How many convolutions of an ONNX file have int8 kernels, and how many it has."""
    import onnx

    graph = onnx.load(path).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convolutions if makers.get(node.input[1]) == "DequantizeLinear"]
    return len(quantized), len(convolutions)


def test_layers_of_onnx_stay_in_float_while_int8_disagrees(images: Images, tmp_path: Path) -> None:
    """One scale cannot hold channels that differ 10,000 times in size: `conv1` is read in float."""
    pytest.importorskip("tf2onnx")
    few = Images(images.calibration[:40], images.check)
    path = tmp_path / "model.onnx"
    write_format(network(), path, "onnx-int8", calibration=few.calibration)
    quantized, all_of_them = quantized_convolutions(path)
    assert quantized == all_of_them
    model = uneven(few.calibration, 1e4)
    export(model, tmp_path / "out", ["onnx-int8"], images=few)  # which refuses under 98%
    quantized, all_of_them = quantized_convolutions(tmp_path / "out" / "model_int8.onnx")
    assert all_of_them / 2 <= quantized < all_of_them


def test_at_most_half_of_the_layers_of_onnx_stay_in_float(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tf2onnx")
    monkeypatch.setattr("keras_inception.exporters.int8._LEAST", 2.0)  # never reached
    path = tmp_path / "model.onnx"
    write_format(network(), path, "onnx-int8", calibration=images.calibration[:20])
    quantized, all_of_them = quantized_convolutions(path)
    assert all_of_them / 2 <= quantized < all_of_them


def test_layers_of_openvino_stay_in_float_while_int8_disagrees(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One scale holds channels that differ 10 times in size badly."""
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    model = uneven(images.calibration[:40], 10)
    counts = []
    for least in (0.0, 0.98):
        monkeypatch.setattr("keras_inception.exporters.int8._LEAST", least)
        path = tmp_path / f"{least}.xml"
        write_format(model, path, "openvino-int8", calibration=images.calibration[:40])
        read = openvino.Core().read_model(path)
        counts.append([op.get_type_name() for op in read.get_ops()].count("FakeQuantize"))
    assert 0 < counts[1] < counts[0]


def test_an_openvino_network_without_an_int8_layer_is_not_called_int8(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    monkeypatch.setattr(
        "keras_inception.exporters.formats.quantize_openvino", lambda model, *_, **__: model
    )
    with pytest.raises(ValueError, match=r"every layer changes too many .* openvino-bfloat16"):
        export(network(), tmp_path / "out", ["openvino-int8"], images=images)
    assert not (tmp_path / "out").exists()


def uneven(images: np.ndarray, factor: float) -> keras.Model:
    """The first channel of `conv1` is `factor` times as large, and read as much less.

    The classes are equally probable on average over the images.
    """
    model = network()
    logits = model.get_layer("predictions_logits")
    mean = np.log(model.predict_on_batch(images / 127.5 - 1)).mean(axis=0)
    logits.set_weights([logits.get_weights()[0], logits.get_weights()[1] - mean])
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    first, second = convolutions[:2]
    kernel, bias = first.get_weights()
    factors = np.where(np.arange(kernel.shape[-1]) == 0, factor, 1.0)
    first.set_weights([kernel * factors, bias * factors])
    kernel, bias = second.get_weights()
    second.set_weights([kernel / factors[:, None], bias])
    return model


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni amx_int8\n", ("avx512_vnni", "amx_int8")),
        ("flags\t\t: fpu avx2\nflags\t\t: fpu avx2\n", ()),
        ("Features\t: fp asimd asimddp\n", ("asimddp",)),
        ("processor\t: 0\n", None),
        (None, None),
    ],
)
def test_int8_instructions_are_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, found: tuple[str, ...]
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr("keras_inception.exporters.instructions.CPU_INFO", tmp_path / "cpuinfo")
    assert int8_instructions() == found


def test_steps_names_of_openvino_and_the_card(images: Images, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    steps: list[str] = []
    export(network(), tmp_path, ["litert", "openvino"], images=images, report=steps.append)
    assert steps == [
        *("writing litert (1 of 2)", "writing openvino (2 of 2)", "timing the formats in turn"),
        *("checking keras (0 of 2)", "checking litert (1 of 2)", "checking openvino (2 of 2)"),
    ]
    read = openvino.Core().read_model(tmp_path / "model.xml")
    assert read.input("pixels").get_index() == read.output("scores").get_index() == 0
    assert "| litert | model.tflite" in (tmp_path / "README.md").read_text()


def test_lrn_is_refused_where_all_operators_are_of_integers(images: Images, tmp_path: Path) -> None:
    """The other formats are kept."""
    with pytest.raises(
        ValueError, match=r"integer operators .* POW, SQUARE in float32.*: litert\."
    ):
        export(network("lrn"), tmp_path / "out", ["litert-uint8", "litert"], images=images)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "model.tflite"}


def test_formats_are_timed_in_the_batch_size_asked_for(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def times(runs: dict[str, object], batch: np.ndarray) -> dict[str, float]:
        shapes.append(batch.shape)
        return dict.fromkeys(runs, 1.0)

    monkeypatch.setattr("keras_inception.exporters.job._interleaved_times", times)
    steps: list[str] = []
    options = {"images": images, "batch_size": 700, "report": steps.append}

    export(network(), tmp_path / "out", ["litert"], **options)

    assert shapes == [(700, 32, 32, 3)]  # more than there are images
    assert steps == [
        "writing litert (1 of 1)",
        "timing the formats in turn",
        "checking keras (0 of 1)",
        "checking litert (1 of 1)",
    ]
    with pytest.raises(ValueError, match="batch size of 1 or more"):
        export(network(), tmp_path / "other", ["litert"], batch_size=0)


def test_times_are_of_one_image_and_of_every_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    sizes: list[int] = []
    runs = {"one": lambda pixels: sizes.append(len(pixels))}
    found = job._interleaved_times(runs, np.zeros((4, 2, 2, 1), np.float32))
    assert found == {"one": 250.0}  # a second a call of four images
    assert set(sizes) == {4}
