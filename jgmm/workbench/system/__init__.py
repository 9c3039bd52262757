"""The operating system: signals, files and processes."""
