"""The reports of a running training: log, trackers and dev scores."""
