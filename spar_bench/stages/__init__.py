"""The kinds of stage: one file each, with all that is true of that kind; no torch."""
