"""The versions of code, output schemas and shipped data."""

from __future__ import annotations

__version__ = "0.1.0"
SCHEMAS = {"explain": 1, "count": 1}
"""Version of each JSON output; the number rises with every breaking change."""
DATA = {"presets": "2026-11-23", "class_defaults": "transformers 5.23.0", "devices": "2026-11-23"}
