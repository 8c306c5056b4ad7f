"""The architecture and the training as data: frozen dataclasses, validated, to and from JSON."""
