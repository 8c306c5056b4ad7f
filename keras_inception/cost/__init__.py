"""Costs counted from a spec; budgets, and scaling a spec to a budget."""
