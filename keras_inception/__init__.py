"""GoogLeNet and the Inception v1 family for Keras 3.

    import keras_inception
    model = keras_inception.GoogLeNet()

The public names are those of `__all__`, listed in `__init__.pyi` and imported at first use.

Source: Szegedy et al., "Going Deeper with Convolutions" (arXiv 1409.4842).
"""

from typing import Any

import lazy_loader

from keras_inception.keras_hook import follow_imports
from keras_inception.packages import explained_imports

__version__ = "0.1.0"

_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name; a missing optional package is one clear error."""
    with explained_imports():
        return _public_name(name)


follow_imports()
