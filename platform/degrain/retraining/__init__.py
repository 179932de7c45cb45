"""Retraining: from new photos to a new champion, unattended."""
