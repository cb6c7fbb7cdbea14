"""The distillation losses: one plug-in per file, each a function `loss` and its `VERSION`."""
