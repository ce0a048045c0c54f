"""Questions about guidance, each with the command that answers it: see docs/findings.

    python -m benchmarks.findings.pull

Every question trains what it needs under results/findings-*, and goes on where it was stopped.
It writes a table and a figure to results/reference/findings.
"""
