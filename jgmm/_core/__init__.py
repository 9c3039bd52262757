"""Foundations of every topic: errors, statuses, compilation, pytrees and budgets."""
