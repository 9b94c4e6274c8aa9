"""A small world whose truth is known: facts, dialogues, gold judges, simulated annotators, the built-in model."""
