"""Files of feature statistics: reading and writing."""
