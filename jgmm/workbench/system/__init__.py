"""The operating system: signals, files, processes and the compilation cache."""
