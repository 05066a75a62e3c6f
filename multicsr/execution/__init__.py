"""Distribution of work over processes and nodes. Only this package uses Ray Data."""
