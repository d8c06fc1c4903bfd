"""An engine of values: shipped, so that control can be tried, tested and simulated without a process."""
