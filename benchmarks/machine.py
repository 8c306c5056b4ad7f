"""The description of the machine, for the tables."""

from keras_inception import device_name as device

__all__ = ["device", "jax_device"]


def jax_device() -> str:
    """Return the name of JAX's first device, an accelerator or this machine's CPU."""
    import jax

    first = jax.devices()[0]
    return device() if first.platform == "cpu" else str(first.device_kind)
