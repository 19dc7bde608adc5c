"""What the jail costs: `make bench` runs `run.py`, `make bench-log` runs `log.py`."""
