"""Batches of patches for training: their order, and splits in memory or streamed."""
