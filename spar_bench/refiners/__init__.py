"""The refiners: one plug-in a file, each a class `Refiner` and its `VERSION`."""
