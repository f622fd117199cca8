"""The content of the answers, as plain data: numbers with their basis, findings as codes. No sentences."""

from .count import Count, count_model
from .explain import Cell, Explanation, HeadRow, explain_heads
from .quantity import Quantity

__all__ = ["Cell", "Count", "Explanation", "HeadRow", "Quantity", "count_model", "explain_heads"]
