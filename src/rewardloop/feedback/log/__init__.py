"""The durable event log of feedback: append-only, the truth; the derived tables can be rebuilt. Imports no torch."""
