"""Defaults that commands show before anything heavy is imported, and that code has too."""

MAX_BAD_FRAC = 0.01
"""The largest fraction of images that may be unusable."""
