"""Studies that answer a question each; `./dev jgmm run configs/NAME.toml` runs one."""
