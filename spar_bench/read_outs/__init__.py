"""The cost of each read-out: one plug-in per file, without torch, a class `ReadOut` each."""
