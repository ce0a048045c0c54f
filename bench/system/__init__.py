"""The machine: files, leases, signals, failures, memory, devices, terminal."""
