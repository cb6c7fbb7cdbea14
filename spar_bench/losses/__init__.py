"""The distillation losses: one plug-in a file, each a function `loss` and its `VERSION`."""
