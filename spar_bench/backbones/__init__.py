"""The backbones: one plug-in per file, and the sizes of each in a data file."""
