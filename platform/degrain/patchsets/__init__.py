"""Patch sets: aligned noisy/clean patches in Parquet shards, described by a manifest."""
