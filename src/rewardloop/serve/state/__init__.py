"""What is known while the gateway runs, all of it from the log."""
