"""Search over specs with KerasTuner, each candidate within its budget.

    from tuning import SearchPlan, Space, search

The hypermodel for KerasTuner's own tuners is `InceptionHyperModel`.
"""

from tuning.hypermodel import InceptionHyperModel
from tuning.latency import LatencyBudget, LatencyModel, measure_latency_model
from tuning.search import SearchPlan, best_spec, search
from tuning.space import Space, base_network
from tuning.trials import best_first, pareto_front, read_trials

__all__ = [
    "InceptionHyperModel",
    "LatencyBudget",
    "LatencyModel",
    "SearchPlan",
    "Space",
    "base_network",
    "best_first",
    "best_spec",
    "measure_latency_model",
    "pareto_front",
    "read_trials",
    "search",
]
