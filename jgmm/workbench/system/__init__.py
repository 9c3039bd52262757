"""Signals, files, processes and the compilation cache."""
