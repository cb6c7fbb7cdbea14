"""The recipe of the weights of `patchwork`."""
