"""Addressed randomness: every random number is a function of where it is used.

A generator hands out numbers in the order they are asked for, so a run that is resumed, spread
over processes or batched differently meets other numbers. Here a number has an *address*, a few
integers such as `(seed, stage, step, TRANSITION, patient)`, and is a hash of it. Nothing is
consumed, so there is no state to save, and any process can compute any draw.

The hash is the SplitMix64 finalizer (Steele, Lea & Flood, 2014, "Fast splittable pseudorandom
number generators", OOPSLA), applied word by word over the address.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

# What a draw is for. It is part of the address, so no two uses ever share a number.
START, TRANSITION, ACTION, BATCH, INIT = range(1, 6)

_WORD = 2**64
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - _WORD if word >= _WORD // 2 else word


def _mix_int(word: int) -> int:
    word = ((word ^ (word >> 30)) * _MIX_1) % _WORD
    word = ((word ^ (word >> 27)) * _MIX_2) % _WORD
    return word ^ (word >> 31)


def _shift_right(word: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own is arithmetic because int64 is signed."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(word: Tensor) -> Tensor:
    # int64 products wrap around on every torch device, which is what the hash needs.
    word = (word ^ _shift_right(word, 30)) * _signed(_MIX_1)
    word = (word ^ _shift_right(word, 27)) * _signed(_MIX_2)
    return word ^ _shift_right(word, 31)


def hash_address(*address: int | Tensor) -> int | Tensor:
    """Hashes an address to 64 bits.

    Words before the first tensor are hashed as Python integers, so an address costs one tensor
    pass for each tensor word: put the tensors last.

    Args:
        address: Integers and int64 tensors that broadcast together.

    Returns:
        An unsigned 64-bit integer if no word is a tensor, else an int64 tensor of the broadcast
        shape that holds the 64 bits.
    """
    state: int | Tensor = 0
    for word in address:
        if isinstance(state, int) and not isinstance(word, Tensor):
            state = _mix_int((state + _GOLDEN + word) % _WORD)
        else:
            offset = _signed((state + _GOLDEN) % _WORD) if isinstance(state, int) else state
            mixed = word + offset
            if isinstance(state, Tensor):
                mixed = mixed + _signed(_GOLDEN)
            assert isinstance(mixed, Tensor)
            state = _mix_tensor(mixed)
    return state


def uniform(*address: int | Tensor) -> Tensor:
    """Uniform numbers in [0, 1) for an address.

    Args:
        address: Integers and int64 tensors that broadcast together.

    Returns:
        float64 tensor of the broadcast shape; multiples of 2**-32.
    """
    bits = hash_address(*address)
    if isinstance(bits, int):
        return torch.tensor((bits >> 32) * 2.0**-32, dtype=torch.float64)
    return _shift_right(bits, 32).to(torch.float64) * 2.0**-32


def integers(high: int, *address: int | Tensor) -> Tensor:
    """Integers in [0, high) for an address with at least one tensor word.

    Args:
        high: Exclusive upper end, at most 2**32.
        address: Integers and int64 tensors that broadcast together.

    Returns:
        int64 tensor of the broadcast shape. The bias of an outcome is below `high` * 2**-32.
    """
    return (uniform(*address) * high).to(torch.int64)


class RowSampler:
    """Draws categories from many categorical distributions at once, by inverse CDF.

    The distributions are the rows of a sparse matrix. Row r's cumulative probabilities are shifted
    by r, which makes one ascending array of all of them: a single `torch.searchsorted` then serves
    any mixture of rows. Because it is the inverse CDF, two rows that are alike give alike outcomes
    for the same uniform number (common random numbers).

    Args:
        probabilities: (n_rows, n_categories), each row summing to 1. At most 2**20 rows, so that
            r + u is exact in float64 for a u that is a multiple of 2**-32.
        device: Where the tables live.
    """

    def __init__(self, probabilities: sp.csr_array, device: torch.device | str = "cpu") -> None:
        table = sp.csr_array(probabilities, dtype=np.float64, copy=True)
        table.sum_duplicates()
        table.eliminate_zeros()
        n_rows = table.shape[0]
        if n_rows > 2**20:
            raise ValueError(f"{n_rows} rows; at most {2**20} can be sampled exactly")
        lengths = np.diff(table.indptr)
        if (lengths == 0).any():
            raise ValueError(f"row {int(np.flatnonzero(lengths == 0)[0])} has no probability")
        cumulative = np.cumsum(table.data)
        before = np.concatenate([[0.0], cumulative])[table.indptr[:-1]]
        row = np.repeat(np.arange(n_rows), lengths)
        cumulative = cumulative - before[row]
        cumulative /= cumulative[table.indptr[1:] - 1][row]  # each row ends at exactly 1
        self._shifted = torch.as_tensor(cumulative + row, device=device)
        self._categories = torch.as_tensor(table.indices.astype(np.int64), device=device)

    def __call__(self, rows: Tensor, u: Tensor) -> Tensor:
        """Draws a category for each row.

        Args:
            rows: int64, which distribution.
            u: float64 in [0, 1), same shape; multiples of 2**-32.

        Returns:
            int64 tensor of the same shape.
        """
        return self._categories[torch.searchsorted(self._shifted, rows + u, right=True)]
