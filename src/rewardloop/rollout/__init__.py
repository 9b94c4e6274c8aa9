"""Sampling from the policy: the decode engine."""
