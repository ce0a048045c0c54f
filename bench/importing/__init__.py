"""Checkpoints of other programs, read without running anything of them, as runs of this one."""
