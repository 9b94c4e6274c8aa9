"""Pure tensor mathematics of learning from reward; needs torch alone."""
