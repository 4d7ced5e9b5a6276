"""Sizes, compute and time, reckoned before they are spent. Nothing here imports torch."""
