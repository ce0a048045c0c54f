"""Training runs: their cards, loop, checkpoints and imported weights."""
