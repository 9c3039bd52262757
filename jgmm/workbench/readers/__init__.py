"""Data from files and built-in data sets."""
