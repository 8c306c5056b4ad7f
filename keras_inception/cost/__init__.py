"""What a network costs, counted from its spec; budgets, and scaling a spec into them."""
