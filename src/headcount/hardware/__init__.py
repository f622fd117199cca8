"""What a model runs on: devices and engines, their figures each with source, date and basis, names as people write them, this machine."""

from .device_files import device_from_file
from .devices import Device, Figure, device_names
from .engines import Engine, Service, engine, engine_names, serves
from .machine import detect
from .names import Match, Note, device, find_device

__all__ = [
    "Device", "Engine", "Figure", "Match", "Note", "Service", "detect", "device", "device_from_file", "device_names", "engine",
    "engine_names", "find_device", "serves",
]
