"""The processes of `rewardloop up`: a supervisor, and the engine that it starts."""
