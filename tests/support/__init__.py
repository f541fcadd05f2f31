"""Helpers for the tests of several packages: servers, checkpoints, examples of each dialect."""
