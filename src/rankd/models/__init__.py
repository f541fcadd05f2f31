"""Models: finds, checks and downloads checkpoints; holds the built-in one."""
