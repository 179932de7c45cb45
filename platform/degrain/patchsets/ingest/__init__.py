"""Ingest: a corpus becomes a patch set, cut by Ray Data."""
