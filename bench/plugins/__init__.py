"""Plugins: loading them, and the conformance batteries that they must pass."""
