"""One verb per wish. Each verb imports what it needs when it is called, so that help needs no torch."""

from rewardloop.cli.app import main

__all__ = ["main"]
