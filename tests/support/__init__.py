"""What tests of several packages share: servers, checkpoints, examples of each dialect."""
