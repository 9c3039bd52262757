"""Speed, against other libraries and the machine's limits: `python -m experiments.benchmark`."""
