"""TensorFlow's checkpoints, which a child process with limits reads first.

TensorFlow ends its process on a size that no tensor has, and unpacks blocks to any size.

    python -m keras_inception.weights.checkpoint SECONDS BYTES PREFIX ALLOWANCE
"""

from __future__ import annotations

import glob
import re
import sys
from pathlib import Path

from keras_inception import isolated
from keras_inception.bounded import Allowance, require_file, shown
from keras_inception.quiet import quiet_tensorflow
from keras_inception.weights.source import Arrays

# Of processor time, beside the import of TensorFlow; 200 MB take about one.
_SECONDS = 15.0
# Other variables that a trainer saves: the step, and slots of the optimizer and the averages.
_TRAINING_STATE = re.compile(
    r"global_step$|.*/(RMSProp(_1)?|Momentum|Adam(_1)?|ExponentialMovingAverage)$"
)


def read_checkpoint(prefix: Path, allowance: Allowance) -> Arrays:
    """Return the variables of a checkpoint, without the training state.

    Args:
        prefix: the single file, or the name before `.index`.
        allowance: of the reader, for the files and again for the arrays.

    Raises:
        ValueError: no checkpoint, a damaged one, or one that exceeds the allowance.
    """
    files = [prefix, *prefix.parent.glob(f"{glob.escape(prefix.name)}.*")]
    allowed = Allowance(allowance.path, allowance.size)
    for file in files:  # a pipe among the parts of a checkpoint would never end
        if file.exists():
            require_file(file)
            allowed.take(file.name, file.stat().st_size)
    try:
        limits = (4 * allowance.size, str(prefix), str(allowance.size))
        isolated.check(__name__, b"", *limits, seconds=_SECONDS)
        return _arrays(prefix, allowance)
    except ValueError as error:
        raise ValueError(
            f"Expected a TF-Slim checkpoint. Received: {str(prefix)!r} ({error})"
        ) from error


def _arrays(prefix: Path, allowance: Allowance) -> Arrays:
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        names = [name for name in sorted(shapes) if not _TRAINING_STATE.match(name)]
        for name in names:
            if not types[name].is_floating:
                raise ValueError(f"{shown(name)} is of {types[name].name}, not of numbers")
            allowance.take_array(name, shapes[name], types[name].size)
        return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, RuntimeError, TypeError, LookupError) as error:
        raise ValueError(str(error)) from error


def _main(seconds: str, memory: str, prefix: str, size: str) -> int:
    with quiet_tensorflow():
        import tensorflow  # noqa: F401 # before the limits
    isolated.limit(float(seconds), int(memory))
    try:
        _arrays(Path(prefix), Allowance(Path(prefix), int(size)))
    except ValueError as error:
        print(error, end="")
        return isolated.REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
