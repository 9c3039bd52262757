"""Studies: the programs that a config runs."""
