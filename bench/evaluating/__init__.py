"""Metrics of anybody's samples: what `bench evaluate` does."""
