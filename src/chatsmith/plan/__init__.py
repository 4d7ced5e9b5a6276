"""Sizes, compute, memory, time and money, reckoned before they are spent. Nothing here imports torch."""
