"""The data sets: one plug-in a file, each a class `Dataset` and its `VERSION`, without torch."""
