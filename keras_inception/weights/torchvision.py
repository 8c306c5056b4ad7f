"""torchvision's state dict of `googlenet`: `.pth` (both formats of torch.save) or `.safetensors`.

A state dict does not record whether its network had `transform_input`. The released one has it, and
the spec's pixels "tf" are the input of its first convolution. For a network without it, pass
`replace(VARIANTS["torchvision"], pixels="torch")` as `spec`.

Names: torchvision/models/googlenet.py.
"""

from __future__ import annotations

import pickle
from pathlib import Path

from keras_inception.packages import explained_imports
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import TORCHVISION
from keras_inception.weights.source import Arrays, Source, pair_units, with_classes, with_heads_of

_PARTS = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_COUNTER = ".num_batches_tracked"  # number of training steps; not used in inference


def read(path: Path) -> Arrays:
    """Return all arrays of a state dict, without the batch counters.

    Raises:
        MissingPackageError: torch, or safetensors, is not installed.
        ValueError: if it is not a state dict, or contains more than tensors.
    """
    read = _read_safetensors if path.suffix.lower() == ".safetensors" else _read_torch
    tensors = read(path)
    return {name: array for name, array in tensors.items() if not name.endswith(_COUNTER)}


def source(path: Path, spec: NetworkSpec | None) -> Source:
    """Read a state dict for a spec, by default `torchvision`."""
    arrays = read(path)
    spec = spec or with_classes(TORCHVISION, arrays, "fc.bias", 0)
    names = with_heads_of(arrays, name_map(spec), spec)
    return Source(path=path, spec=spec, arrays=arrays, names=names, channels_first=True)


def name_map(spec: NetworkSpec) -> dict[str, str]:
    """This package's variables -> torchvision's; aux1 is on 4a in both, for any output order."""
    units = pair_units(
        spec,
        stem=("conv1", "conv2", "conv3"),
        module=lambda name: f"inception{name}.",
        parts=_PARTS,
    )
    dense = {"predictions_logits": "fc"}
    for index, aux in enumerate(spec.aux, start=1):
        units[f"{aux.name}_proj"] = f"aux{index}.conv"
        dense[f"{aux.name}_dense"] = f"aux{index}.fc1"
        dense[f"{aux.name}_logits"] = f"aux{index}.fc2"
    names = {}
    for own, unit in units.items():
        names[f"{own}_conv/kernel"] = f"{unit}.conv.weight"
        for variable, theirs in _BATCH_NORM.items():
            names[f"{own}_bn/{variable}"] = f"{unit}.bn.{theirs}"
    for own, layer in dense.items():
        names[f"{own}/kernel"] = f"{layer}.weight"
        names[f"{own}/bias"] = f"{layer}.bias"
    return names


def _read_torch(path: Path) -> Arrays:
    with explained_imports():
        import torch
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"Expected a state dict of tensors. Received: {str(path)!r} ({error})"
        ) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        kind = sorted(state)[:10] if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"Expected a state dict: names and tensors alone. Received: {kind} in {str(path)!r}. "
            "Save `model.state_dict()` of the network."
        )
    return {name: tensor.numpy() for name, tensor in state.items()}


def _read_safetensors(path: Path) -> Arrays:
    with explained_imports():
        import safetensors
        import safetensors.numpy
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"Expected a file of safetensors. Received: {str(path)!r} ({error})"
        ) from error
