"""Corpora as they are distributed: file names become noisy/clean pairs."""
