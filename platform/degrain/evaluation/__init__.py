"""Comparing denoisers on whole photos."""
