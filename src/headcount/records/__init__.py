"""Facts on disk, versioned: measured kernel times and own measurements."""

from .kernels import Grid, KernelTable, TableInfo, has_table, kernel_manifest, load_table
from .measurements import Measurement, append_measurements, read_measurements

__all__ = [
    "Grid", "KernelTable", "Measurement", "TableInfo", "append_measurements", "has_table", "kernel_manifest", "load_table",
    "read_measurements",
]
