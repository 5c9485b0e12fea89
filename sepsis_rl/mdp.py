"""The decision process behind everything else: `TabularMDP`, read from the installed ICU-Sepsis.

The tables are those of `icu_sepsis` (Choudhary et al., 2024, "ICU-Sepsis: A Benchmark MDP Built
from Real Medical Data"); nothing of them is copied into this package. The environment holds two
dense arrays of (states, actions, states), most of whose entries are zero and most of whose rows
repeat: an inadmissible action has the mean row of its state. Here only the distinct rows are kept,
sparse.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from sepsis_rl.errors import InputError

ENVIRONMENT_ID = "Sepsis/ICU-Sepsis-v2"

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

    def index(self, iv_fluid_level: Any, vasopressor_level: Any) -> Any:
        """The action of two levels (integers, or integer arrays that broadcast)."""
        return iv_fluid_level * self.n_vasopressor_levels + vasopressor_level

    def levels(self, action: Any) -> tuple[Any, Any]:
        """The (IV-fluid level, vasopressor level) of an action or of an array of actions."""
        return action // self.n_vasopressor_levels, action % self.n_vasopressor_levels

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
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value = value.copy()
                value.setflags(write=False)
                object.__setattr__(self, field.name, value)
        rows = sp.csr_array(self.rows, dtype=np.float64, copy=True)
        rows.sum_duplicates()
        for part in (rows.data, rows.indices, rows.indptr):
            part.setflags(write=False)
        object.__setattr__(self, "rows", rows)
        self.validate()

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

    def transition(self, state: int, action: int) -> FloatArray:
        """Next-state distribution (n_states,) of one pair, with inadmissible actions as "mean"."""
        row: FloatArray = self.rows[[int(self.row_index[state, action])]].toarray()[0]
        return row

    def dynamics(self, strategy: Strategy = "mean") -> tuple[sp.csr_array, IntArray]:
        """The transition table under a strategy for inadmissible actions.

        Args:
            strategy: "terminate" sends inadmissible actions to death. "raise_exception" has the
                rows of "mean": who evaluates or steps must refuse the pair first.

        Returns:
            rows (n_rows, n_states) csr float64 and row_index (n_states, n_actions) int64.

        Raises:
            InputError: The strategy is unknown.
        """
        check_strategy(strategy)
        if strategy != "terminate":
            return self.rows, self.row_index
        return _terminating_dynamics(self)

    def validate(self) -> None:
        """Checks shapes, distributions, terminal states and rewards.

        Raises:
            InputError: A rule is broken; the message names what, where and what is accepted.
        """
        n_states, n_actions = self.n_states, self.n_actions
        pairs = (n_states, n_actions)
        for name, shape in (
            ("rewards", (n_states,)),
            ("start", (n_states,)),
            ("terminal", (n_states,)),
            ("admissible", pairs),
            ("clinician", pairs),
            ("sofa_scores", (n_states,)),
            ("state_vectors", (n_states, *self.state_vectors.shape[1:])),
            ("rows", (self.rows.shape[0], n_states)),
        ):
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"{name} has shape {getattr(self, name).shape}; accepted: {shape}, "
                    f"as row_index has shape {pairs}"
                )
        if self.dose_grid.n_actions != n_actions:
            raise InputError(
                f"{self.dose_grid} makes {self.dose_grid.n_actions} actions; the tables have "
                f"{n_actions}"
            )
        for name in ("death_state", "survival_state"):
            state = getattr(self, name)
            if not (0 <= state < n_states and self.terminal[state]):
                raise InputError(f"{name} is {state}; accepted: the index of a terminal state")
        if self.max_episode_steps < 1:
            raise InputError(f"max_episode_steps is {self.max_episode_steps}; accepted: 1 or more")

        _reject((self.row_index < 0) | (self.row_index >= self.rows.shape[0]), "row_index", "state")
        for name in ("rewards", "sofa_scores", "state_vectors"):
            _reject(~np.isfinite(getattr(self, name)), name, "state", "accepted: finite numbers")

        entry_ok = np.isfinite(self.rows.data) & (self.rows.data >= 0)
        bad_entry = np.bincount(_row_numbers(self.rows)[~entry_ok], minlength=self.rows.shape[0])
        _reject(bad_entry > 0, "rows", "row", "accepted: finite numbers of at least 0")
        _reject(
            np.abs(self.rows.sum(axis=1) - 1) > _SUM_TOLERANCE,
            "rows",
            "row",
            "accepted: each sums to 1",
        )
        if not (np.isfinite(self.start) & (self.start >= 0)).all() or (
            abs(self.start.sum() - 1) > _SUM_TOLERANCE
        ):
            raise InputError("start is no distribution; accepted: numbers >= 0 that sum to 1")
        _reject(self.terminal & (self.start > 0), "start", "state", "no episode starts in its end")

        bad = ~(np.isfinite(self.clinician) & (self.clinician >= 0))
        _reject(bad, "clinician", "state", "accepted: finite numbers of at least 0")
        sums = self.clinician.sum(axis=1)
        wrong = np.abs(sums - 1) > _SUM_TOLERANCE
        wrong &= ~(self.terminal & (sums == 0))
        _reject(wrong, "clinician", "state", "accepted: each row sums to 1 (0 in terminal states)")
        _reject(
            ~self.terminal & ~self.admissible.any(axis=1),
            "admissible",
            "state",
            "accepted: at least one admissible action in each non-terminal state",
        )

        # What follows the end must be the end, and must be worth nothing: planning stops there.
        silent = self.terminal & (self.rewards == 0)
        escapes = np.asarray(self.rows[:, ~silent].sum(axis=1) > 0)
        _reject(
            self.terminal & escapes[self.row_index].any(axis=1),
            "rows",
            "state",
            "accepted: terminal states lead to terminal states without reward alone",
        )


def _reject(bad: BoolArray, name: str, what: str, rule: str = "index out of range") -> None:
    """Raises `InputError` naming the first rows in which `bad` has a True."""
    if not bad.any():
        return
    where = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    named = ", ".join(str(row) for row in where[:_ROWS_NAMED])
    more = f" and {len(where) - _ROWS_NAMED} more" if len(where) > _ROWS_NAMED else ""
    raise InputError(f"{name}: {what} {named}{more}: {rule}")


def _row_numbers(table: sp.csr_array) -> IntArray:
    """Row of every stored entry."""
    return np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))


@functools.lru_cache(maxsize=8)
def _terminating_dynamics(mdp: TabularMDP) -> tuple[sp.csr_array, IntArray]:
    death = sp.csr_array(([1.0], ([0], [mdp.death_state])), shape=(1, mdp.n_states))
    # Once it is over the strategy has no say.
    stays = mdp.admissible | mdp.terminal[:, None]
    row_index = np.where(stays, mdp.row_index, mdp.rows.shape[0])
    row_index.setflags(write=False)
    return sp.csr_array(sp.vstack([mdp.rows, death], format="csr")), row_index


def import_icu_sepsis() -> ModuleType:
    """Imports `icu_sepsis`, which registers its environments with gymnasium.

    It also imports the unmaintained `gym`, which prints a notice to stderr; that is kept from the
    user, who can do nothing about it.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module("icu_sepsis")


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
    terminal = np.zeros(n_states, dtype=np.bool_)
    terminal[list(constants.STATES_TERMINAL)] = True
    max_episode_steps = gymnasium.spec(ENVIRONMENT_ID).max_episode_steps
    assert max_episode_steps is not None
    n_iv_fluid_levels, n_vasopressor_levels = environment.action_space.nvec
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
        terminal=terminal,
        max_episode_steps=max_episode_steps,
        dose_grid=DoseGrid(int(n_iv_fluid_levels), int(n_vasopressor_levels)),
    )


def _rewards_on_entering(every_row: sp.csr_array, r_mat: FloatArray, death: int) -> FloatArray:
    """The reward of each state on entering it, from rewards of (state, action, next state).

    Only transitions that can happen count (the environment's table also pays for some that
    cannot), and death from anywhere, which the strategy "terminate" makes possible.
    """
    n_states = every_row.shape[1]
    pair, entered = _row_numbers(every_row), every_row.indices
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
    number_of: dict[bytes, int] = {}
    firsts: list[int] = []
    row_index = np.empty(every_row.shape[0], dtype=np.int64)
    for row, (begin, end) in enumerate(
        zip(every_row.indptr[:-1], every_row.indptr[1:], strict=True)
    ):
        key = every_row.indices[begin:end].tobytes() + every_row.data[begin:end].tobytes()
        number = number_of.setdefault(key, len(firsts))
        if number == len(firsts):
            firsts.append(row)
        row_index[row] = number
    return every_row[firsts], row_index
