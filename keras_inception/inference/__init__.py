"""From images to labels with a saved network: in Python and over HTTP."""
