"""Benchmark of guidance methods: data, training, sweeps, rows and reports."""
