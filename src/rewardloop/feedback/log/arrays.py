"""What was sampled, as bytes: safetensors, deflated. Token ids and log-probs are most of what a log weighs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rewardloop.errors import StoreError
from rewardloop.types import Completion

LEVEL = 1  # log-probs hardly shrink further, and the gateway's only writer must not wait


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """The arrays of one completion."""

    prompt_ids_P: np.ndarray  # int32
    token_ids_T: np.ndarray  # int32, the end token included if one was sampled
    logprobs_T: np.ndarray  # float32, at sampling
    weight_versions_T: np.ndarray  # int32
    ends_T: np.ndarray  # int32: characters of the text up to and with each token

    @classmethod
    def of(cls, completion: Completion, ends: Sequence[int]) -> Sampled:
        """Those of `completion`; `ends` as `ends_T`."""
        return cls(
            np.asarray(completion.prompt_ids, dtype=np.int32),
            np.asarray(completion.token_ids, dtype=np.int32),
            np.asarray(completion.logprobs_T, dtype=np.float32),
            np.asarray(completion.weight_versions_T, dtype=np.int32),
            np.asarray(ends, dtype=np.int32),
        )

    @classmethod
    def empty(cls) -> Sampled:
        """Of a completion whose tokens are not on record."""
        whole = np.zeros(0, dtype=np.int32)
        return cls(whole, whole, np.zeros(0, dtype=np.float32), whole, whole)

    def start_of(self, token: int) -> int:
        """The character at which token `token` begins; that of the last for tokens beyond it."""
        return int(self.ends_T[min(token, len(self.ends_T)) - 1]) if token > 0 and len(self.ends_T) else 0


def pack(sampled: Sampled) -> bytes:
    """`sampled` as bytes."""
    return zlib.compress(save({f.name: np.ascontiguousarray(getattr(sampled, f.name)) for f in fields(sampled)}), LEVEL)


def unpack(data: bytes) -> Sampled:
    """The arrays in `data`. Raises StoreError where they are damaged."""
    try:
        return Sampled(**load(zlib.decompress(data)))
    except (zlib.error, SafetensorError, TypeError) as error:
        raise StoreError(f"the arrays of a completion are damaged ({error}); put back a copy") from error
