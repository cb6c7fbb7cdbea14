"""How the students of `patchwork` in the package were made; see README.md."""
