"""Registered models: their files, their names, and which of them is the champion and why."""
