"""Migrations of the database, forward only; run by feedback/log/migrating.py."""
