"""The embedded default: a world of drawn scenes and a small vision-language model of it."""
