"""A recipe of a small AnyUp for `patchwork`."""
