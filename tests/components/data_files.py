"""A data file as a user writes one, and the name of a backbone that lacks weights here."""

LAION = "openclip-b16-laion2b"
TINY = """plugin: openclip
hub: someone/tiny
source: https://example.org/tiny
license: MIT
terms: thank its author
patch_px: 8
image_px: 32
width: 16
depth: 3
heads: 2
mlp_ratio: 4.0
channels: 12
read_out: maskclip
"""
