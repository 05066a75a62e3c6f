"""Entry points, one per job: what `ray job submit` and a RayJob run."""
