"""What surrounds every request, whatever it asks."""
