"""From a spec to a Keras model with named endpoints. Keras only."""
