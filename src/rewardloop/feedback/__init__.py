"""Feedback of people: files in many layouts, records, training examples. Imports no torch."""
