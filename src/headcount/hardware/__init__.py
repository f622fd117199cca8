"""What a model runs on: devices and their figures, each with its source."""

from .devices import Device, Figure, device, device_names

__all__ = ["Device", "Figure", "device", "device_names"]
