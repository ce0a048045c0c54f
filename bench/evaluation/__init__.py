"""Sets of samples through extractors into values of metrics."""
