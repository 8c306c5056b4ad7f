"""TF-Slim's checkpoint of `inception_v1`: a folder, a prefix, or the released tarball.

The released file has the old one-file format; TF-Slim's trainer writes the newer format of three
files. Both are read without a session. Names: tf_slim/nets/inception_v1.py.
"""

from __future__ import annotations

from pathlib import Path

from keras_inception.archives import tar_files
from keras_inception.bounded import shown
from keras_inception.files import temporary_folder
from keras_inception.spec.network import NetworkSpec
from keras_inception.spec.variants import SLIM
from keras_inception.weights.checkpoint import read_checkpoint
from keras_inception.weights.source import Arrays, Source, allowance, pair_units, with_classes

_SCOPE = "InceptionV1/"
_LOGITS = f"{_SCOPE}Logits/Conv2d_0c_1x1"
_BACKGROUND_CLASSES = 1001
_STEM = tuple(_SCOPE + name for name in ("Conv2d_1a_7x7", "Conv2d_2b_1x1", "Conv2d_2c_3x3"))
_PARTS = (
    "Branch_0/Conv2d_0a_1x1",
    "Branch_1/Conv2d_0a_1x1",
    "Branch_1/Conv2d_0b_3x3",
    "Branch_2/Conv2d_0a_1x1",
    "Branch_2/Conv2d_0b_3x3",
    "Branch_3/Conv2d_0b_1x1",
)
# The one scope that breaks the pattern.
_ODD = {
    f"{_SCOPE}Mixed_5b/Branch_2/Conv2d_0b_3x3": f"{_SCOPE}Mixed_5b/Branch_2/Conv2d_0a_3x3",
}


def read(path: Path, spec: NetworkSpec | None = None) -> Arrays:
    """Return all variables of the network in a checkpoint, without the training state.

    Raises:
        ValueError: if there is no checkpoint, more than one, or a damaged one.
    """
    if not path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return read_checkpoint(_prefix(path), allowance(path, spec))
    with temporary_folder() as folder:  # TensorFlow reads checkpoints from files only
        try:
            for name, content in tar_files(path, allowance(path, spec)):
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            return read_checkpoint(_prefix(folder), allowance(path, spec))
        except (OSError, RecursionError) as error:  # RecursionError: thousands of folders
            raise ValueError(
                f"Expected a tarball of a TF-Slim checkpoint. Received: {str(path)!r} "
                f"({shown(str(error))})"
            ) from error
        except ValueError as error:  # it names the file that is unpacked
            raise ValueError(str(error).replace(str(folder), str(path))) from error


def source(path: Path, spec: NetworkSpec | None, classes: int | None) -> Source:
    """Read a checkpoint for a spec, by default `slim`.

    The background, row 0 of 1001 classes, is dropped unless `classes` is 1001.
    """
    arrays = read(path, spec)
    if classes != _BACKGROUND_CLASSES:
        for name in (f"{_LOGITS}/weights", f"{_LOGITS}/biases"):
            if name in arrays and arrays[name].shape[-1] == _BACKGROUND_CLASSES:
                arrays[name] = arrays[name][..., 1:]
    kernel = arrays.get(f"{_LOGITS}/weights")
    if kernel is not None and kernel.shape[:2] == (1, 1):
        arrays[f"{_LOGITS}/weights"] = kernel[0, 0]  # a 1x1 convolution there, dense here
    spec = spec or with_classes(SLIM, arrays, f"{_LOGITS}/biases", -1)
    return Source(path=path, spec=spec, arrays=arrays, names=name_map(spec), channels_first=False)


def name_map(spec: NetworkSpec) -> dict[str, str]:
    """This package's variables -> TF-Slim's; its Mixed_3b is the paper's 3a."""
    units = pair_units(
        spec,
        stem=_STEM,
        module=lambda name: f"{_SCOPE}Mixed_{name[0]}{chr(ord(name[1]) + 1)}/",
        parts=_PARTS,
    )
    names = {}
    for own, scope in units.items():
        scope = _ODD.get(scope, scope)
        names[f"{own}_conv/kernel"] = f"{scope}/weights"
        for variable in ("beta", "moving_mean", "moving_variance"):
            names[f"{own}_bn/{variable}"] = f"{scope}/BatchNorm/{variable}"
    names["predictions_logits/kernel"] = f"{_LOGITS}/weights"
    names["predictions_logits/bias"] = f"{_LOGITS}/biases"
    return names


def _prefix(path: Path) -> Path:
    """Return the argument of `load_checkpoint`: the single file, or the name before `.index`."""
    if path.suffix.lower() == ".index":
        return path.with_suffix("")
    if not path.is_dir():
        return path
    prefixes = sorted({file.with_suffix("") for file in path.rglob("*.index")})
    prefixes = prefixes or sorted(path.rglob("*.ckpt"))
    if len(prefixes) != 1:
        raise ValueError(
            f"Expected one checkpoint in {str(path)!r}. "
            f"Received: {shown([prefix.name for prefix in prefixes])}. Give the path of one."
        )
    return prefixes[0]
