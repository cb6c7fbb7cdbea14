"""spar-bench: what finer sliding windows buy, what they cost, and whether one pass gets there."""

__version__ = "0.1.0"
