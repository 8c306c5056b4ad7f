"""The description of the machine, for the tables."""

from keras_inception import device_name as device

__all__ = ["device"]
