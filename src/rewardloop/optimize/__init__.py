"""Changes the policy: where the weight on each token comes from, and the one update all methods share."""
