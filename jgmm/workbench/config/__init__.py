"""Config files: their models and their format."""
