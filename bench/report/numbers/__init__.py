"""The numbers of a report, from rows alone."""
