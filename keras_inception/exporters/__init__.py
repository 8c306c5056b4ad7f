"""From a trained network to formats that serve it, checked against the network."""
