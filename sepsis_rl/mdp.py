"""The decision process behind everything else: `TabularMDP`, read from the installed ICU-Sepsis.

The tables are those of `icu_sepsis` (Choudhary et al., 2024, "ICU-Sepsis: A Benchmark MDP Built
from Real Medical Data"); nothing of them is copied into this package. The environment holds two
dense arrays of (states, actions, states), most of whose entries are zero and most of whose rows
repeat: an inadmissible action has the mean row of its state. Here only the distinct rows are kept,
sparse.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import itertools
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from sepsis_rl.errors import InputError
from sepsis_rl.registration import ENVIRONMENT_ID, import_icu_sepsis

Strategy = Literal["mean", "terminate", "raise_exception"]
# What the environment does with an inadmissible action; its first one is the default.
STRATEGIES: tuple[Strategy, ...] = ("mean", "terminate", "raise_exception")

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_SUM_TOLERANCE = 1e-9
_ROWS_NAMED = 5


def check_strategy(strategy: str) -> None:
    """Raises `InputError` unless `strategy` is one of `STRATEGIES`."""
    if strategy not in STRATEGIES:
        raise InputError(
            f"inadmissible-action strategy {strategy!r} is unknown; "
            f"accepted: {', '.join(STRATEGIES)}"
        )


@dataclass(frozen=True)
class DoseGrid:
    """Two doses in one action: index = IV-fluid level x vasopressor levels + vasopressor level.

    The order is that of `icu_sepsis_helpers/mdp_creation/create_rl_table.py`: the first factor is
    `input_4hourly` (IV fluid), the second `max_dose_vaso`.
    """

    n_iv_fluid_levels: int
    n_vasopressor_levels: int

    @property
    def n_actions(self) -> int:
        """Number of dose pairs."""
        return self.n_iv_fluid_levels * self.n_vasopressor_levels

    def levels(self, action: Any) -> tuple[Any, Any]:
        """The (IV-fluid level, vasopressor level) of an action or of an array of actions."""
        return action // self.n_vasopressor_levels, action % self.n_vasopressor_levels

    def features(self) -> FloatArray:
        """IV fluid (-1 to 1), vasopressor (0 to 2), whether there is any of it; (n_actions, 3)."""
        doses = np.stack(self.levels(np.arange(self.n_actions))) / 1.0
        fluid, vasopressor = doses / np.maximum(doses.max(axis=1, keepdims=True) / 2, 0.5)
        return np.stack([fluid - 1, vasopressor, vasopressor > 0], axis=1)

    def name(self, action: int) -> str:
        """An action in words, such as "IV fluid 2, vasopressor 0"."""
        iv_fluid_level, vasopressor_level = self.levels(action)
        return f"IV fluid {iv_fluid_level}, vasopressor {vasopressor_level}"


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite decision process of treatment, with an end in death or survival.

    Arrays are copied and made read-only, and everything is checked once, when it is made.

    Attributes:
        environment_id: The id under which gymnasium knows the environment.
        environment_version: Version of the package that the tables come from.
        rows: (n_rows, n_states) float64, the distinct next-state distributions.
        row_index: (n_states, n_actions) int64, the row in `rows` that a pair has.
        rewards: (n_states,) float64, the reward on *entering* a state.
        start: (n_states,) float64, distribution of an episode's first state.
        admissible: (n_states, n_actions) bool, the actions clinicians took often enough.
        clinician: (n_states, n_actions) float64, estimated clinician policy; the rows of terminal
            states may sum to 0.
        sofa_scores: (n_states,) float64, mean SOFA score of a state's patients.
        state_vectors: (n_states, n_features) float64, normalized features of a state's center.
        death_state: Index of death.
        survival_state: Index of survival.
        terminal: (n_states,) bool, death, survival and the absorbing end.
        max_episode_steps: Steps (of 4 hours) after which an episode is truncated.
        dose_grid: What an action's index means.

    Raises:
        InputError: A table breaks a rule; the message names the first bad rows.
    """

    environment_id: str
    environment_version: str
    rows: sp.csr_array
    row_index: IntArray
    rewards: FloatArray
    start: FloatArray
    admissible: BoolArray
    clinician: FloatArray
    sofa_scores: FloatArray
    state_vectors: FloatArray
    death_state: int
    survival_state: int
    terminal: BoolArray
    max_episode_steps: int
    dose_grid: DoseGrid

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, np.ndarray):
                value = value.copy()
                value.setflags(write=False)
                object.__setattr__(self, name, value)
        rows = sp.csr_array(self.rows, dtype=np.float64, copy=True)
        rows.sum_duplicates()
        for part in (rows.data, rows.indices, rows.indptr):
            part.setflags(write=False)
        object.__setattr__(self, "rows", rows)
        self._check_shapes()
        self._check_values()

    def __repr__(self) -> str:
        return (
            f"TabularMDP({self.environment_id!r} {self.environment_version}, "
            f"{self.n_states} states, {self.n_actions} actions, "
            f"{self.rows.shape[0]} distinct rows)"
        )

    @property
    def n_states(self) -> int:
        """Number of states, terminal ones included."""
        return int(self.row_index.shape[0])

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return int(self.row_index.shape[1])

    def _check_shapes(self) -> None:
        n_states, n_actions = pairs = self.row_index.shape
        by_state = ("rewards", "start", "terminal", "sofa_scores")
        shapes: dict[str, tuple[Any, ...]] = dict.fromkeys(by_state, (n_states,))
        shapes |= {"admissible": pairs, "clinician": pairs, "rows": (self.rows.shape[0], n_states)}
        shapes["state_vectors"] = (n_states, *self.state_vectors.shape[1:])
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"{name} has shape {getattr(self, name).shape}; accepted: {shape}, "
                    f"as row_index has shape {pairs}"
                )
        if (made := self.dose_grid.n_actions) != n_actions:
            raise InputError(f"{self.dose_grid} makes {made} actions; the tables have {n_actions}")
        for name in ("death_state", "survival_state"):
            state = getattr(self, name)
            if not (0 <= state < n_states and self.terminal[state]):
                raise InputError(f"{name} is {state}; accepted: the index of a terminal state")
        if self.max_episode_steps < 1:
            raise InputError(f"max_episode_steps is {self.max_episode_steps}; accepted: 1 or more")

    def _check_values(self) -> None:
        rows, terminal, clinician = self.rows, self.terminal, self.clinician
        distribution = "accepted: numbers of at least 0 that sum to 1"
        outside = (self.row_index < 0) | (self.row_index >= rows.shape[0])
        _reject(outside, "row_index: state", "index out of range")
        for name in ("rewards", "sofa_scores", "state_vectors"):
            _reject(~np.isfinite(getattr(self, name)), f"{name}: state", "accepted: finite numbers")

        # A sum that is no number is not close to 1 either.
        bad = ~(np.abs(rows.sum(axis=1) - 1) <= _SUM_TOLERANCE)
        _reject(bad | (rows.min(axis=1).toarray() < 0), "rows: row", distribution)
        if not (self.start.min() >= 0 and abs(self.start.sum() - 1) <= _SUM_TOLERANCE):
            raise InputError(f"start is no distribution; {distribution}")
        _reject(terminal & (self.start > 0), "start: state", "no episode starts in its end")

        bad = ~(np.abs(clinician.sum(axis=1) - 1) <= _SUM_TOLERANCE) | (clinician < 0).any(axis=1)
        bad &= ~(terminal & (clinician == 0).all(axis=1))
        _reject(bad, "clinician: state", f"{distribution} (or, in terminal states, are all 0)")
        bad = ~terminal & ~self.admissible.any(axis=1)
        _reject(bad, "admissible: state", "accepted: one action or more in non-terminal states")

        # What follows the end must be the end, and must be worth nothing: planning stops there.
        escapes = rows[:, ~(terminal & (self.rewards == 0))].sum(axis=1) > 0
        bad = terminal & escapes[self.row_index].any(axis=1)
        _reject(bad, "rows: state", "accepted: terminal states lead to terminal ones, unrewarded")


def _reject(bad: BoolArray, where: str, rule: str) -> None:
    """Raises `InputError` naming the first rows in which `bad` has a True."""
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    if len(rows):
        named = ", ".join(map(str, rows[:_ROWS_NAMED]))
        more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
        raise InputError(f"{where} {named}{more}: {rule}")


@functools.cache
def load_icu_sepsis() -> TabularMDP:
    """Reads the tables of the installed ICU-Sepsis environment.

    The environment's dense tables (about 205 MB) are freed again.

    Returns:
        The decision process; always the same object.

    Raises:
        InputError: The tables break a rule of `TabularMDP`, or pay rewards that do not depend on
            the entered state alone.
    """
    constants = importlib.import_module(f"{import_icu_sepsis().__name__}.utils.constants")
    environment: Any = gymnasium.make(ENVIRONMENT_ID).unwrapped
    tables = environment.dynamics
    dense: FloatArray = tables["tx_mat"]
    n_states, n_actions, _ = dense.shape
    every_row = sp.csr_array(dense.reshape(n_states * n_actions, n_states))
    rewards = _rewards_on_entering(every_row, tables["r_mat"], constants.STATE_DEATH)
    rows, row_index = _distinct_rows(every_row)

    admissible = np.zeros((n_states, n_actions), dtype=np.bool_)
    for state, actions in enumerate(tables["admissible_actions"]):
        admissible[state, actions] = True
    return TabularMDP(
        environment_id=ENVIRONMENT_ID,
        environment_version=importlib.metadata.version("icu-sepsis"),
        rows=rows,
        row_index=row_index.reshape(n_states, n_actions),
        rewards=rewards,
        start=tables["d_0"],
        admissible=admissible,
        clinician=environment.expert_policy,
        sofa_scores=environment.sofa_scores,
        state_vectors=environment.state_cluster_centers,
        death_state=constants.STATE_DEATH,
        survival_state=constants.STATE_SURVIVAL,
        terminal=np.isin(np.arange(n_states), list(constants.STATES_TERMINAL)),
        max_episode_steps=gymnasium.spec(ENVIRONMENT_ID).max_episode_steps or 0,
        dose_grid=DoseGrid(*map(int, environment.action_space.nvec)),
    )


def _rewards_on_entering(every_row: sp.csr_array, r_mat: FloatArray, death: int) -> FloatArray:
    """The reward of each state on entering it, from rewards of (state, action, next state).

    Only transitions that can happen count (the environment's table also pays for some that
    cannot), and death from anywhere, which the strategy "terminate" makes possible.
    """
    n_states = every_row.shape[1]
    pair, entered = every_row.tocoo().coords
    paid = r_mat.reshape(every_row.shape)[pair, entered]
    rewards = np.zeros(n_states)
    rewards[entered] = paid
    if (rewards[entered] != paid).any() or (r_mat[..., death] != rewards[death]).any():
        raise InputError(
            "the environment's rewards depend on more than the state entered; this package "
            "knows rewards on entering a state alone"
        )
    return rewards


def _distinct_rows(every_row: sp.csr_array) -> tuple[sp.csr_array, IntArray]:
    """The distinct rows in order of first appearance, and which of them each row is."""
    keys = [
        every_row.indices[begin:end].tobytes() + every_row.data[begin:end].tobytes()
        for begin, end in itertools.pairwise(every_row.indptr)
    ]
    number_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    row_index = np.array([number_of[key] for key in keys])
    _, firsts = np.unique(row_index, return_index=True)
    return every_row[firsts], row_index
