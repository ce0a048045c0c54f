"""Experiments: suites, folders, rows and their keys."""
