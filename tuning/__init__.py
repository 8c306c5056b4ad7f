"""Search over specs with KerasTuner, each candidate within its budget.

    from tuning import SearchPlan, Space, search

The hypermodel for KerasTuner's own tuners is `InceptionHyperModel`. The public names are those of
`__all__`, listed in `__init__.pyi` and imported at first use.
"""

from typing import Any

import lazy_loader

from keras_inception.packages import explained_imports

_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name; a missing optional package is one clear error."""
    with explained_imports("tune"):
        return _public_name(name)
