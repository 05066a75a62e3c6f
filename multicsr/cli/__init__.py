"""The command line: commands, their options, and the entry point of jobs."""
