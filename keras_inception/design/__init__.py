"""Measured design: from statistics of a network's activations to a spec (section 4)."""
