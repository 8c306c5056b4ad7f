"""Google's frozen graph `tensorflow_inception_graph.pb` (DeepDream, Lucid), or its zip.

The graph is parsed as a protobuf message and never run. Node names are those of the released file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_inception.archives import read_zip
from keras_inception.bounded import read_file
from keras_inception.spec.network import LRNSpec, NetworkSpec
from keras_inception.spec.variants import INCEPTION5H
from keras_inception.weights.source import (
    Arrays,
    Source,
    allowance,
    check_lrn,
    pair_units,
    with_classes,
    with_heads_of,
)
from keras_inception.weights.wire import check_message

_MEMBER = "tensorflow_inception_graph.pb"
_PARTS = (
    "_1x1",
    "_3x3_bottleneck",
    "_3x3",
    "_5x5_bottleneck",
    "_5x5",
    "_pool_reduce",
)


def read(path: Path, spec: NetworkSpec | None = None) -> Arrays:
    """Return all floating-point constants of rank 1 or more.

    Raises:
        ValueError: not a frozen graph.
    """
    return _arrays(_parse(path, spec), path, spec)


def source(path: Path, spec: NetworkSpec | None) -> Source:
    """Read a graph for a spec, by default `inception5h`; its own LRN nodes must agree with it."""
    graph = _parse(path, spec)
    arrays = _arrays(graph, path, spec)
    spec = spec or with_classes(INCEPTION5H, arrays, "softmax2_b", 0)
    check_lrn(path, spec, [_lrn(node) for node in graph.node if node.op == "LRN"])
    names = with_heads_of(arrays, name_map(spec), spec)
    return Source(path=path, spec=spec, arrays=arrays, names=names, channels_first=False)


def name_map(spec: NetworkSpec) -> dict[str, str]:
    """This package's variables -> the graph's constants."""
    units = pair_units(
        spec,
        stem=("conv2d0", "conv2d1", "conv2d2"),
        module=lambda name: f"mixed{name}",
        parts=_PARTS,
    )
    nodes = {f"{own}_conv": node for own, node in units.items()}
    nodes["predictions_logits"] = "softmax2"
    for index, aux in enumerate(spec.aux):
        nodes[f"{aux.name}_proj_conv"] = f"head{index}_bottleneck"
        nodes[f"{aux.name}_dense"] = f"nn{index}"
        nodes[f"{aux.name}_logits"] = f"softmax{index}"
    return {
        f"{own}/{variable}": f"{node}_{letter}"
        for own, node in nodes.items()
        for variable, letter in (("kernel", "w"), ("bias", "b"))
    }


def _parse(path: Path, spec: NetworkSpec | None) -> Any:
    import tensorflow as tf
    from google.protobuf import message

    graph = tf.compat.v1.GraphDef()
    try:
        if path.suffix.lower() == ".zip":
            (data,) = read_zip(path, allowance(path, spec), _MEMBER)
        else:
            data = read_file(path, allowance(path, spec))
        check_message(data, graph.DESCRIPTOR, allowance(path, spec), "a frozen graph")
        graph.ParseFromString(data)
    except (ValueError, message.DecodeError) as error:
        raise ValueError(
            f"Expected a frozen graph, or a zip that holds {_MEMBER!r}. "
            f"Received: {str(path)!r} ({error})"
        ) from error
    return graph


def _arrays(graph: Any, path: Path, spec: NetworkSpec | None) -> Arrays:
    import tensorflow as tf

    arrays, allowed = {}, allowance(path, spec)
    for node in graph.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor is not None and tensor.tensor_shape.dim and tensor.dtype == tf.float32:
            shape = [dim.size for dim in tensor.tensor_shape.dim]
            allowed.take_array(node.name, shape, 4)  # one value may stand for all of an array
            arrays[node.name] = tf.make_ndarray(tensor)
    return arrays


def _lrn(node: Any) -> LRNSpec:
    """TensorFlow's alpha is not divided by the window."""
    window_size = 2 * node.attr["depth_radius"].i + 1
    return LRNSpec(
        name="norm",
        window_size=window_size,
        alpha_per_window=node.attr["alpha"].f * window_size,
        beta=node.attr["beta"].f,
        bias=node.attr["bias"].f,
    )
