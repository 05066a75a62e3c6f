"""Progress in the terminal, and metrics for Prometheus."""
