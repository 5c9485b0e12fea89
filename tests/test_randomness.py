"""Draws are a pure function of their address, uniform, and independent across words."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sepsis_rl.randomness import (
    ACTION,
    BATCH,
    INIT,
    START,
    TRANSITION,
    RowSampler,
    hash_address,
    integers,
    uniform,
)


def _reference_hash(*address: int) -> int:
    """SplitMix64's finalizer over the words, in unsigned arithmetic."""
    state = 0
    for word in address:
        z = (state + 0x9E3779B97F4A7C15 + word) % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        state = z ^ (z >> 31)
    return state


def test_published_value_of_splitmix64() -> None:
    # The first output of SplitMix64 with seed 0.
    assert hash_address(0) == 0xE220A8397B1DCDAF


def test_integers_and_tensors_hash_alike() -> None:
    patients = torch.tensor([0, 1, 2, -1, 2**62, 123_456_789])
    steps = torch.tensor([[0], [7]])
    got = hash_address(42, 3, steps, patients)
    assert got.shape == (2, 6)
    for i, step in enumerate(steps[:, 0].tolist()):
        for j, patient in enumerate(patients.tolist()):
            expected = _reference_hash(42, 3, step, patient)
            assert hash_address(42, 3, step, patient) == expected
            assert int(got[i, j]) % 2**64 == expected
            assert uniform(42, 3, step, patient).item() == (expected >> 32) * 2.0**-32
            assert uniform(42, 3, steps, patients)[i, j] == (expected >> 32) * 2.0**-32


def test_streams_differ() -> None:
    assert len({START, TRANSITION, ACTION, BATCH, INIT}) == 5
    draws = torch.stack([uniform(1, s, torch.arange(2000)) for s in (START, TRANSITION, ACTION)])
    correlation = np.corrcoef(draws.numpy())
    assert np.abs(correlation - np.eye(3)).max() < 4 / 2000**0.5


@pytest.mark.parametrize("word", [0, 1, 2])
def test_draws_are_uniform_and_uncorrelated_along_each_word(word: int) -> None:
    n = 40_000
    address: list[int | torch.Tensor] = [11, 5, 2]
    address[word] = torch.arange(n)
    draws = uniform(*address).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.bincount((draws * 20).astype(int), minlength=20)
    chi_square = ((counts - n / 20) ** 2 / (n / 20)).sum()
    assert chi_square < 43.8  # the 99.9 % point with 19 degrees of freedom
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 4 / n**0.5
    assert len(np.unique(draws)) > 0.9999 * n


def test_integers() -> None:
    drawn = integers(7, 3, torch.arange(70_000))
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn, minlength=7)
    assert len(counts) == 7
    assert ((counts - 10_000).abs() < 4 * 10_000**0.5).all()


@pytest.fixture
def sampler() -> RowSampler:
    """Two rows over four categories: all on 2; a quarter on 0, a half on 1, a quarter on 3."""
    return RowSampler(sp.csr_array([[0, 0, 1.0, 0], [0.25, 0.5, 0, 0.25]]))


def test_row_sampler_inverts_the_cumulative_distribution(sampler: RowSampler) -> None:
    below = 2.0**-32
    u = torch.tensor([0.0, 0.25 - below, 0.25, 0.75 - below, 0.75, 1 - below], dtype=torch.float64)
    ones = torch.ones(6, dtype=torch.int64)
    assert sampler(ones, u).tolist() == [0, 0, 1, 1, 3, 3]
    assert sampler(0 * ones, u).tolist() == [2] * 6


def test_row_sampler_never_leaves_its_row() -> None:
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(50), size=3000) * (rng.random((3000, 50)) < 0.2)
    table[:, 7] += 1e-3
    table /= table.sum(axis=1, keepdims=True)
    sampler = RowSampler(sp.csr_array(table))
    rows = torch.arange(3000)
    for u in (0.0, 0.3, 1 - 2.0**-32):
        drawn = sampler(rows, torch.full((3000,), u, dtype=torch.float64)).numpy()
        assert (table[np.arange(3000), drawn] > 0).all()
        if u == 0.3:
            expected = (table.cumsum(axis=1) <= u).sum(axis=1)
            np.testing.assert_array_equal(drawn, expected)


def test_row_sampler_drops_stored_zeros_and_refuses_empty_rows() -> None:
    stored_zero = sp.csr_array(([0.0, 1.0], ([0, 0], [0, 1])), shape=(1, 2))
    u = torch.zeros(1, dtype=torch.float64)
    assert RowSampler(stored_zero)(torch.zeros(1, dtype=torch.int64), u).item() == 1
    with pytest.raises(ValueError, match="row 1 has no probability"):
        RowSampler(sp.csr_array([[1.0, 0.0], [0.0, 0.0]]))
