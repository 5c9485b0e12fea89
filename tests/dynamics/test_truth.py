"""What follows each decision in the environment, under each rule for inadmissible actions."""

from dataclasses import replace

import numpy as np
import pytest

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import STRATEGIES, TabularMDP


def distributions(mdp: TabularMDP, strategy: str) -> np.ndarray:
    """(n_states, n_actions, n_states)."""
    dynamics = true_dynamics(mdp, strategy)
    return (dynamics.mixture @ dynamics.rows).toarray().reshape(*mdp.row_index.shape, -1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_pair_has_its_row(chain_mdp: TabularMDP, strategy: str) -> None:
    expected = chain_mdp.rows.toarray()[chain_mdp.row_index]
    rewards = np.array([[0, 0.5], [0.75, 0.25], [0, 0], [0, 0], [0, 0]])
    if strategy == "terminate":
        expected[1, 1], rewards[1, 1] = [0, 0, 1, 0, 0], 0
    np.testing.assert_array_equal(distributions(chain_mdp, strategy), expected)
    dynamics = true_dynamics(chain_mdp, strategy)
    np.testing.assert_array_equal(dynamics.rewards, rewards)
    np.testing.assert_array_equal(dynamics.start, chain_mdp.start)
    np.testing.assert_array_equal(dynamics.terminal, chain_mdp.terminal)
    assert dynamics.survival_state == chain_mdp.survival_state == 3
    if strategy == "raise_exception":
        np.testing.assert_array_equal(np.argwhere(dynamics.forbidden), [[1, 1]])
    else:
        assert dynamics.forbidden is None


def test_what_is_over_stays_over_whatever_is_admissible_there(chain_mdp: TabularMDP) -> None:
    none_at_the_end = replace(
        chain_mdp, admissible=chain_mdp.admissible & ~chain_mdp.terminal[:, None]
    )
    for strategy in STRATEGIES:
        np.testing.assert_array_equal(
            distributions(none_at_the_end, strategy), distributions(chain_mdp, strategy)
        )
    forbidden = true_dynamics(none_at_the_end, "raise_exception").forbidden
    np.testing.assert_array_equal(np.argwhere(forbidden), [[1, 1]])


def test_an_unknown_strategy(chain_mdp: TabularMDP) -> None:
    with pytest.raises(InputError, match="'stop' is unknown; accepted: mean, terminate"):
        true_dynamics(chain_mdp, "stop")  # type: ignore[arg-type]


def test_the_tables_of_icu_sepsis_are_shared_and_made_once(mdp: TabularMDP) -> None:
    dynamics = true_dynamics(mdp)
    assert true_dynamics(mdp) is dynamics
    assert dynamics.rows is mdp.rows
    np.testing.assert_array_equal(dynamics.mixture.indices.reshape(716, 25), mdp.row_index)
    assert true_dynamics(mdp, "terminate").rows.shape == (2919, 716)
