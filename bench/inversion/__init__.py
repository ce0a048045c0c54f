"""Inversion, reconstruction and editing: measured in sweeps, and of images by command."""
