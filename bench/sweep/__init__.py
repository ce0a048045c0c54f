"""Cells of a sweep: planned, sampled, measured and stored."""
