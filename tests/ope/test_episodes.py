"""The packing of episodes, and whose decisions they are."""

import numpy as np
import pytest

from sepsis_rl.errors import InputError
from sepsis_rl.ope import Episodes
from sepsis_rl.policies import Policy

SHORT = [(0, 1, 0.5, 3)]
LONG = [(1, 0, 1.0, 0), (0, 1, 2.0, 2), (2, 2, 4.0, 3)]
MIDDLE = [(2, 1, 8.0, 2), (2, 0, 16.0, 3)]


@pytest.fixture
def episodes(make_records) -> Episodes:
    """Of which the records hold one more before."""
    transitions = make_records([LONG, SHORT, LONG, MIDDLE, SHORT])
    return Episodes(transitions.select_episodes([False, *[True] * 4]), 4, 3, gamma=0.5)


def test_packing_by_hand(episodes: Episodes) -> None:
    assert len(episodes) == 4
    np.testing.assert_array_equal(episodes.lengths, [3, 2, 1, 1])
    # Step 0 of the long, the middle and both short ones; step 1 of two of them; step 2 of one.
    np.testing.assert_array_equal(episodes.observation, [1, 2, 0, 0, 0, 2, 2])
    np.testing.assert_array_equal(episodes.action, [0, 1, 1, 1, 1, 0, 2])
    np.testing.assert_array_equal(episodes.next_observation, [0, 2, 3, 3, 2, 3, 3])
    np.testing.assert_array_equal(episodes.reward, [1, 8, 0.5, 0.5, 2, 16, 4])
    np.testing.assert_array_equal(episodes.terminated, [0, 0, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(episodes.discount, [1, 1, 1, 1, 0.5, 0.5, 0.25])
    np.testing.assert_array_equal(episodes.episode, [0, 1, 2, 3, 0, 1, 0])
    np.testing.assert_array_equal(episodes.starts, [1, 2, 0, 0])
    np.testing.assert_array_equal(episodes.returns, [1 + 1 + 1, 8 + 8, 0.5, 0.5])
    assert list(episodes.steps()) == [slice(0, 4), slice(4, 6), slice(6, 7)]
    assert repr(episodes) == "Episodes(4 episodes, 7 rows, gamma 0.5)"


def test_sum_by_episode_by_hand(episodes: Episodes) -> None:
    values = np.array([[1.0, 2, 3, 4, 5, 6, 7], [1, 0, 0, 0, 10, 0, 100]])
    expected = [[1 + 5 + 7, 2 + 6, 3, 4], [111, 0, 0, 0]]
    np.testing.assert_array_equal(episodes.sum_by_episode(values), expected)
    np.testing.assert_array_equal(episodes.sum_by_episode(values[0]), expected[0])
    np.testing.assert_array_equal(
        episodes.sum_by_episode(values[:, None]), [[row] for row in expected]
    )


def test_estimated_behavior_by_hand(episodes: Episodes) -> None:
    third = [1 / 3] * 3
    np.testing.assert_allclose(
        episodes.behavior.probabilities, [[0, 1, 0], [1, 0, 0], third, third], atol=1e-15
    )


def test_a_known_behavior_must_have_made_the_decisions(make_records) -> None:
    transitions = make_records([SHORT, LONG])
    sure = np.array([[0.0, 1, 0], [1, 0, 0], [0.0, 1, 0], [1, 0, 0]])
    with pytest.raises(
        InputError, match=r"'sure' cannot have made 1 of .* first action 2 in state 2;"
    ):
        Episodes(transitions, 4, 3, behavior=Policy("sure", sure))
    sure[2] = [0.0, 0.5, 0.5]
    known = Policy("sure", sure)
    assert Episodes(transitions, 4, 3, behavior=known).behavior is known
    with pytest.raises(InputError, match=r"shape \(4, 4\); accepted: \(4, 3\)"):
        Episodes(transitions, 4, 3, behavior=Policy("wide", np.full((4, 4), 0.25)))


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1.01, np.nan])
def test_gamma_out_of_range(make_records, gamma) -> None:
    with pytest.raises(InputError, match="accepted: above 0, at most 1"):
        Episodes(make_records([SHORT]), 4, 3, gamma=gamma)


def test_no_episodes(make_records) -> None:
    none = make_records([SHORT]).select_episodes([False])
    with pytest.raises(InputError, match="at least one"):
        Episodes(none, 4, 3)


def test_resamples_draw_whole_episodes_with_replacement(make_random_records) -> None:
    episodes = Episodes(make_random_records(0), 4, 3)
    counts = np.concatenate(list(episodes.resamples(3000)))
    assert counts.shape == (3000, 40)
    assert (counts.sum(axis=1) == 40).all()
    # Binomial(40, 1/40): mean 1, variance 0.975; an episode is left out with (39/40)^40 = 0.363.
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.09)
    assert counts.var() == pytest.approx(0.975, abs=0.02)
    assert (counts == 0).mean() == pytest.approx(0.363, abs=0.01)


def test_a_resample_is_a_function_of_seed_and_number(make_random_records, monkeypatch) -> None:
    episodes = Episodes(make_random_records(0), 4, 3)
    whole = np.concatenate(list(episodes.resamples(20, seed=5)))
    assert len(list(episodes.resamples(20, seed=5))) == 1
    np.testing.assert_array_equal(np.concatenate(list(episodes.resamples(7, seed=5))), whole[:7])
    assert not np.array_equal(np.concatenate(list(episodes.resamples(20, seed=6))), whole)
    # Resample b of one seed is no resample of the next.
    other = np.concatenate(list(episodes.resamples(20, seed=6)))
    assert not (whole[:, None] == other[None]).all(axis=2).any()
    monkeypatch.setattr("sepsis_rl.ope.episodes._ELEMENTS_PER_BLOCK", 3 * 40)
    blocks = list(episodes.resamples(20, seed=5))
    assert [len(block) for block in blocks] == [3] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    monkeypatch.setattr("sepsis_rl.ope.episodes._ELEMENTS_PER_BLOCK", 1)
    assert [len(block) for block in episodes.resamples(3)] == [1, 1, 1]
    assert list(episodes.resamples(0)) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((4, 0, 0.0, 3), "observation lies between 0 and 4; accepted: 0 to 3"),
        ((0, 2, 0.0, 3), "action lies between 1 and 2; accepted: 0 to 1"),
        ((0, 0, 0.0, 9), "next_observation lies between 3 and 9; accepted: 0 to 3"),
    ],
)
def test_indices_out_of_range(make_records, row, said) -> None:
    """They would be taken for others, silently."""
    transitions = make_records([[row], [(0, 1, 1.0, 3)]], truncated=[0])
    with pytest.raises(InputError, match=f"^{said}"):
        Episodes(transitions, 4, 2)
