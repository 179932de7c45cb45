"""Degrain: train, tune and ship image-denoising networks on a Ray cluster."""

__version__ = "0.1.0"
