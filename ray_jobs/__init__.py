"""Entry points that `ray job submit` and a RayJob run, one module per job."""
