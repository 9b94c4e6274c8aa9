"""The online method: sample, score, optimize, ask, refit, evaluate, repeat."""
