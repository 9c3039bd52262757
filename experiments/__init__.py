"""Studies, each of which answers one question; `./dev jgmm run configs/NAME.toml` runs one."""
