"""Measures and changes nothing: defects, win rate with intervals, drift, length, repetition, the report."""
