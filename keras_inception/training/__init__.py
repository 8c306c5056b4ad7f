"""From a spec, a recipe and data to a trained network and its run folder."""
