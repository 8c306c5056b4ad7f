"""The description of the machine, for the tables."""

from keras_inception.runtimes.timing import device_name as device

__all__ = ["device"]
