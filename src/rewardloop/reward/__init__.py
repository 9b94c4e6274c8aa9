"""Reward: sources, the likelihood of judgments, fitting, the potential, scoring of rollouts."""
