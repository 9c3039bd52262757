"""A run: its folder, its files and its report, and the comparison of two runs."""
