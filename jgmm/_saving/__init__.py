"""Saved results: one file each, without pickle, checked when it is loaded."""
