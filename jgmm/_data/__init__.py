"""Samples on their way in: data frames, validation, standardization."""
