"""The engine, as the gateway sees it."""
