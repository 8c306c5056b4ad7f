"""Search over specs with KerasTuner, each candidate within its budget.

    from tuning import SearchPlan, Space, search

The hypermodel for KerasTuner's own tuners is `InceptionHyperModel`. The public names are those of
`__all__`, listed in `__init__.pyi` and imported at first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
