"""Every error a user can cause, by kind. Messages say what was given, what was expected, what to do.

The command line turns a RewardLoopError into one line and exit code 2.
"""


class RewardLoopError(Exception):
    """Base of all errors that a user can cause or mend."""


class ConfigError(RewardLoopError, ValueError):
    """A recipe, an option or an argument is not usable."""


class DataError(RewardLoopError, ValueError):
    """A feedback file or a record in it is malformed; the message names file and line."""


class ModelError(RewardLoopError, RuntimeError):
    """A model folder cannot be loaded, is refused, or does not fit the request."""


class StoreError(RewardLoopError, OSError):
    """Something could not be written or read back whole (disk full, corrupt checkpoint)."""


class TrainingError(RewardLoopError, RuntimeError):
    """Training had to stop: three non-finite steps in a row, a reward that is NaN."""
