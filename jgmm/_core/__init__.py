"""What every topic stands on: errors, statuses, compilation, pytrees, budgets."""
