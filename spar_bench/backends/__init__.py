"""Where stages are made: one plug-in per file, each a class `Backend`."""
