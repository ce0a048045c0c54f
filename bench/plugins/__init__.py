"""Plugins: loading, and the conformance batteries that they must pass."""
