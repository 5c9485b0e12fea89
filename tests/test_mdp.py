"""The tables equal the real environment's, and broken tables are refused by name."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import DoseGrid, TabularMDP, load_icu_sepsis


def test_every_pair_has_the_row_of_the_real_environment(mdp: TabularMDP, real: Any) -> None:
    tx_mat = real.dynamics["tx_mat"]
    assert tx_mat.shape == (mdp.n_states, mdp.n_actions, mdp.n_states) == (716, 25, 716)
    for state in range(mdp.n_states):
        np.testing.assert_array_equal(mdp.rows[mdp.row_index[state]].toarray(), tx_mat[state])


def test_rewards_and_other_tables_are_the_real_environments(mdp: TabularMDP, real: Any) -> None:
    possible = real.dynamics["tx_mat"] > 0
    entered = np.broadcast_to(mdp.rewards, possible.shape)
    np.testing.assert_array_equal(real.dynamics["r_mat"][possible], entered[possible])
    np.testing.assert_array_equal(mdp.rewards, np.arange(716) == 714)
    np.testing.assert_array_equal(mdp.start, real.dynamics["d_0"])
    np.testing.assert_array_equal(mdp.clinician, real.expert_policy)
    np.testing.assert_array_equal(mdp.sofa_scores, real.sofa_scores)
    np.testing.assert_array_equal(mdp.state_vectors, real.state_cluster_centers)
    for state, actions in enumerate(real.dynamics["admissible_actions"]):
        np.testing.assert_array_equal(np.flatnonzero(mdp.admissible[state]), sorted(actions))
    assert (mdp.death_state, mdp.survival_state) == (713, 714)
    np.testing.assert_array_equal(np.flatnonzero(mdp.terminal), [713, 714, 715])
    assert mdp.max_episode_steps == 500


def test_distinct_rows_are_distinct_and_few(mdp: TabularMDP) -> None:
    assert mdp.rows.shape == (2918, 716)
    dense = mdp.rows.toarray()
    assert len(np.unique(dense, axis=0)) == 2918
    assert set(mdp.row_index.ravel()) == set(range(2918))


def test_loading_twice_gives_the_same_read_only_object(mdp: TabularMDP) -> None:
    assert load_icu_sepsis() is mdp
    with pytest.raises(ValueError, match="read-only"):
        mdp.start[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        mdp.rows.data[0] = 1.0


def test_the_notice_of_gym_stays_away_and_the_dense_tables_are_freed() -> None:
    script = (
        "from sepsis_rl.mdp import load_icu_sepsis\n"
        "load_icu_sepsis()\n"
        "import sys; assert 'gym' in sys.modules\n"
        "print([line.split()[1] for line in open('/proc/self/status') if 'VmRSS' in line][0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
    # 150 MB, most of it imports; 205 MB more if the dense tables stayed.
    assert int(done.stdout) < 300_000


def test_dose_grid() -> None:
    grid = DoseGrid(5, 5)
    assert grid.n_actions == 25
    assert grid.levels(20) == (4, 0)
    assert grid.name(20) == "IV fluid 4, vasopressor 0"
    iv_fluid, vasopressor = DoseGrid(2, 3).levels(np.arange(6))
    np.testing.assert_array_equal(iv_fluid, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(vasopressor, [0, 1, 2, 0, 1, 2])


def test_the_grid_is_that_of_the_environment(mdp: TabularMDP, make_real_env) -> None:
    real = make_real_env().unwrapped
    flat = make_real_env().get_wrapper_attr("action")
    assert mdp.dose_grid == DoseGrid(*(int(n) for n in real.action_space.nvec))
    for action in range(mdp.n_actions):
        assert mdp.dose_grid.levels(action) == tuple(flat(action))


def _with(array: np.ndarray, where: tuple[int, ...], value: float) -> np.ndarray:
    changed = np.array(array)
    changed[where] = value
    return changed


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("rows", lambda m: sp.csr_array(_with(m.rows.toarray(), (3, 2), 0.5)), "rows: row 3:"),
        ("rows", lambda m: sp.csr_array(_with(m.rows.toarray(), (1, 2), -0.5)), "rows: row 1:"),
        ("rows", lambda m: sp.csr_array(_with(m.rows.toarray(), (0, 0), np.nan)), "rows: row 0:"),
        (
            "rows",
            lambda m: sp.csr_array(_with(_with(m.rows.toarray(), (4, 4), 0), (4, 0), 1)),
            "rows: state 2, 3, 4: accepted: terminal states lead to terminal",
        ),
        (
            "rows",
            lambda m: sp.csr_array(_with(_with(m.rows.toarray(), (4, 4), 0), (4, 3), 1)),
            "rows: state 2, 3, 4: accepted: terminal states lead to terminal",
        ),
        ("row_index", lambda m: _with(m.row_index, (1, 0), 5), "row_index: state 1"),
        ("rewards", lambda m: _with(m.rewards, (3,), np.inf), "rewards: state 3"),
        ("rewards", lambda m: m.rewards[:4], r"rewards has shape \(4,\)"),
        ("start", lambda m: _with(m.start, (0,), 0.5), "start is no distribution"),
        (
            "start",
            lambda m: np.array([0.75, 0.0, 0.25, 0.0, 0.0]),
            "start: state 2: no episode starts in its end",
        ),
        ("clinician", lambda m: _with(m.clinician, (1, 0), 0.5), "clinician: state 1"),
        ("clinician", lambda m: _with(m.clinician, (1, 0), np.nan), "clinician: state 1"),
        ("clinician", lambda m: _with(m.clinician, (0,), 0.0), "clinician: state 0"),
        ("admissible", lambda m: _with(m.admissible, (0,), False), "admissible: state 0"),
        ("sofa_scores", lambda m: _with(m.sofa_scores, (1,), np.nan), "sofa_scores: state 1"),
        ("death_state", lambda m: 0, "death_state is 0"),
        ("survival_state", lambda m: 5, "survival_state is 5"),
        ("max_episode_steps", lambda m: 0, "max_episode_steps is 0"),
        ("dose_grid", lambda m: DoseGrid(2, 2), "makes 4 actions; the tables have 2"),
    ],
)
def test_broken_tables_are_refused(chain_mdp: TabularMDP, field, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(chain_mdp, **{field: change(chain_mdp)})


def test_repr(chain_mdp: TabularMDP) -> None:
    assert repr(chain_mdp) == "TabularMDP('Chain-v0' 1, 5 states, 2 actions, 5 distinct rows)"


def test_what_effects_of_doses_depend_on() -> None:
    """Of the grid 5 x 5: IV fluid from -1 to 1, vasopressor from 0 to 2, and whether any."""
    features = DoseGrid(5, 5).features()
    assert features.shape == (25, 3)
    assert features[[0, 4, 12, 21]].tolist() == [[-1, 0, 0], [-1, 2, 1], [0, 1, 1], [1, 0.5, 1]]
    assert np.isfinite(DoseGrid(1, 9).features()).all()  # a single dose of all has no middle
