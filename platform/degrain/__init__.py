"""Degrain trains, tunes and ships image-denoising networks on a Ray cluster."""

__version__ = "0.1.0"
