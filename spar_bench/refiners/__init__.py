"""The refiners: one plug-in a file, each a callable `Refiner` and its `VERSION`."""
