"""How fast, against other libraries and against the machine: `python -m experiments.benchmark`."""
