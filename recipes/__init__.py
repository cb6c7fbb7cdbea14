"""How what lies in the package was made; run from a clone, not installed."""
