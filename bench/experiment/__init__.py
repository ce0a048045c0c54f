"""What is asked for and what is kept: suites, places, rows and their keys."""
