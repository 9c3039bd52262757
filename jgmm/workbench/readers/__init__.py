"""Readers of data files and built-in data sets."""
