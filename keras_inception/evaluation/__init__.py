"""How good a network is, and what it sees: scores, testing crops, plots, pictures."""
