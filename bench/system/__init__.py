"""The machine: files, claims, signals, failures, memory, devices, terminal."""
