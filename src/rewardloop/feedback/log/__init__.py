"""The durable event log of feedback: append-only, the truth; tables derived from it can be rebuilt. Imports no torch."""
