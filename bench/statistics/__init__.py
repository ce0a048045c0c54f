"""Statistics of features in the files of the field: read, checked, written."""
