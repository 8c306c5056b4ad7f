"""Design from statistics: from a network's activations to a spec (section 4)."""
