"""Files, screens and settings."""
