"""The tuner: searches the knobs of guidance rules on seeds that no report uses."""
