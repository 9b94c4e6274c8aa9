"""What several routes do with gateway and engine."""
