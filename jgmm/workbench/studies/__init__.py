"""Studies: what a config runs."""
