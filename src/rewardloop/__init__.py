"""rewardloop: any judgment becomes an immediate reward, and a language model learns from it."""

__version__ = "0.1.0"
