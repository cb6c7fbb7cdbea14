"""The refiners: one plug-in per file, each a class `Refiner` and its `VERSION`."""
