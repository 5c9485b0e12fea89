"""`BatchedSepsisEnv` is the real environment, many times over."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from icu_sepsis.utils.exceptions import InadmissibleActionError

from sepsis_rl.envs import BatchedSepsisEnv, make_env
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import STRATEGIES, TabularMDP
from sepsis_rl.randomness import TRANSITION, uniform

RealEnv = Callable[..., gymnasium.Env[Any, Any]]


@pytest.fixture(autouse=True)
def _real_tables_are_shared(monkeypatch: pytest.MonkeyPatch, make_real_env: RealEnv) -> None:
    monkeypatch.setattr("sepsis_rl.envs.make_env", make_real_env)


def _actions(env: BatchedSepsisEnv, action: int = 0) -> torch.Tensor:
    return torch.full((env.num_envs,), action)


# --- the same dynamics ------------------------------------------------------------------------


def test_the_real_environment_is_made_with_each_strategy(mdp, make_real_env: RealEnv) -> None:
    for strategy in STRATEGIES:
        env = make_real_env(strategy)
        assert env.unwrapped._inadmissible_action_strategy == strategy
    assert env.spec.id == mdp.environment_id
    assert env.spec.max_episode_steps == mdp.max_episode_steps == 500
    state, _ = env.reset(seed=0)
    assert env.step(int(np.flatnonzero(mdp.admissible[state])[0]))[0] in range(mdp.n_states)


@pytest.mark.parametrize("strategy", ["mean", "terminate"])
def test_every_pair_moves_as_the_real_tables_say(mdp: TabularMDP, real: Any, strategy) -> None:
    n_patient_states = int((~mdp.terminal).sum())
    pairs = torch.arange(n_patient_states * mdp.n_actions)
    env = BatchedSepsisEnv(mdp, len(pairs), strategy=strategy, info=False)
    env.reset(seed=5)
    env._states[:] = pairs // mdp.n_actions
    draws = uniform(TRANSITION, 0, env.episode_keys).numpy()
    observations, rewards, terminated, truncated, _ = env.step(pairs % mdp.n_actions)

    tx_mat, r_mat = real.dynamics["tx_mat"], real.dynamics["r_mat"]
    admissible = [set(actions) for actions in real.dynamics["admissible_actions"]]
    rounding = 0
    for i in range(len(pairs)):
        state, action = divmod(i, mdp.n_actions)
        if strategy == "terminate" and action not in admissible[state]:
            expected = 713
        else:
            cumulative = tx_mat[state, action].cumsum()
            expected = int(np.searchsorted(cumulative, draws[i], side="right"))
            rounding += np.abs(cumulative - draws[i]).min() < 1e-12
        assert observations[i] == expected
        assert rewards[i] == r_mat[state, action, expected]
    assert rounding == 0
    np.testing.assert_array_equal(terminated, np.isin(observations, [713, 714, 715]))
    assert not truncated.any()


def test_raise_exception_refuses_and_moves_nothing(mdp: TabularMDP) -> None:
    env = BatchedSepsisEnv(mdp, 3, strategy="raise_exception")
    observations, infos = env.reset(seed=0)
    good = torch.tensor([actions[0] for actions in infos["admissible_actions"]])
    bad = good.clone()
    state = int(observations[1])
    bad[1] = int(np.flatnonzero(~mdp.admissible[state])[0])
    name = mdp.dose_grid.name(int(bad[1]))
    with pytest.raises(
        InadmissibleActionError,
        match=rf"inadmissible action {int(bad[1])} \({name}\) in state {state} of environment 1",
    ):
        env.step(bad)
    # Nothing has moved: the step can be taken with better actions, to the same end.
    again = BatchedSepsisEnv(mdp, 3)
    again.reset(seed=0)
    assert torch.equal(env.step(good)[0], again.step(good)[0])


def test_raise_exception_names_the_environment_after_others_ended(chain_mdp: TabularMDP) -> None:
    env = BatchedSepsisEnv(
        chain_mdp, 64, strategy="raise_exception", autoreset_mode=AutoresetMode.DISABLED
    )
    env.reset(seed=0)
    states, _, over, _, _ = env.step(_actions(env))
    last = int((states == 1).nonzero()[-1])
    assert over[:last].any()
    actions = _actions(env)
    actions[over] = 1  # what is over takes no action
    env.step(actions.clone())
    env.reset(seed=0)
    env.step(_actions(env))
    actions[last] = 1
    with pytest.raises(InadmissibleActionError, match=f"state 1 of environment {last}$"):
        env.step(actions)


def test_strategies_are_checked(mdp: TabularMDP) -> None:
    for make in (make_env, lambda strategy: BatchedSepsisEnv(mdp, 1, strategy=strategy)):
        with pytest.raises(InputError, match="'stop' is unknown"):
            make("stop")  # type: ignore[arg-type]


# --- gymnasium's conventions ------------------------------------------------------------------


def _same_structure(ours: Any, theirs: Any, path: str = "infos") -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), path
        for key in theirs:
            _same_structure(ours[key], theirs[key], f"{path}[{key!r}]")
        return
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape, path
    if not path.endswith("['final_obs']"):  # theirs holds objects, ours integers
        assert ours.dtype == theirs.dtype, path


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_infos_look_like_those_of_sync_vector_env(
    mdp: TabularMDP, make_real_env: RealEnv, mode: AutoresetMode
) -> None:
    theirs = SyncVectorEnv([make_real_env] * 3, autoreset_mode=mode)
    ours = BatchedSepsisEnv(mdp, 3, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.single_action_space == theirs.single_action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]

    _same_structure(ours.reset(seed=0)[1], theirs.reset(seed=0)[1])
    ends = []
    for env in (ours, theirs):
        env.reset(seed=1)
        for _ in range(200):
            *arrays, infos = env.step(np.zeros(3, dtype=np.int64))
            if np.asarray(arrays[2]).any():
                ends.append((arrays, infos))
                break
    assert len(ends) == 2
    for mine, real in zip(ends[0][0], ends[1][0], strict=True):
        assert np.asarray(mine).dtype == real.dtype
        assert np.asarray(mine).shape == real.shape
    _same_structure(ends[0][1], ends[1][1])

    if mode is AutoresetMode.DISABLED:
        mask = np.array([False, True, False])
        mine = ours.reset(options={"reset_mask": mask})[1]
        _same_structure(mine, theirs.reset(options={"reset_mask": mask})[1])
        for key in ("_admissible_actions", "_state_vector", "_sofa_score"):
            np.testing.assert_array_equal(mine[key], mask)
        assert mine["admissible_actions"][0] is None
        assert mine["state_vector"][0].abs().sum() == mine["sofa_score"][2] == 0


def test_infos_describe_the_observed_states(mdp: TabularMDP, real: Any) -> None:
    env = BatchedSepsisEnv(mdp, 500, autoreset_mode=AutoresetMode.DISABLED)
    observations, infos = env.reset(seed=0)
    for _ in range(3):
        states = observations.numpy()
        np.testing.assert_array_equal(infos["state_vector"], real.state_cluster_centers[states])
        np.testing.assert_array_equal(infos["sofa_score"], real.sofa_scores[states])
        expected = [sorted(real.dynamics["admissible_actions"][state]) for state in states]
        assert infos["admissible_actions"].tolist() == expected
        observations, _, terminated, _, infos = env.step(_actions(env, 5))
    assert terminated.any()


def test_tensors_share_memory_with_numpy(mdp: TabularMDP) -> None:
    env = BatchedSepsisEnv(mdp, 4)
    env.reset(seed=0)
    observations, rewards, *_ = env.step(np.array([0, 1, 2, 3], dtype=np.int32))
    assert np.shares_memory(np.asarray(observations), observations.numpy())
    assert np.asarray(rewards).dtype == np.float64


def test_what_is_returned_stays_as_it_was(chain_mdp: TabularMDP) -> None:
    env = BatchedSepsisEnv(chain_mdp, 200, autoreset_mode=AutoresetMode.SAME_STEP)
    kept: list[torch.Tensor] = [env.reset(seed=0)[0]]
    for _ in range(3):
        *arrays, infos = env.step(_actions(env))
        kept += [*arrays, infos["final_obs"], infos["_final_obs"], infos["sofa_score"]]
        kept += [infos["final_info"]["sofa_score"], infos["_final_info"]]
    copies = [tensor.clone() for tensor in kept]
    for _ in range(3):
        env.step(_actions(env))
    for tensor, copy in zip(kept, copies, strict=True):
        assert torch.equal(tensor, copy)


def _waiting(chain_mdp: TabularMDP, mode: AutoresetMode, **options: Any) -> BatchedSepsisEnv:
    return BatchedSepsisEnv(chain_mdp, 400, autoreset_mode=mode, **options)


def test_next_step_autoreset(chain_mdp: TabularMDP) -> None:
    env = _waiting(chain_mdp, AutoresetMode.NEXT_STEP)
    states, _ = env.reset(seed=0)
    over = torch.zeros(400, dtype=torch.bool)
    resets = 0
    for _ in range(12):
        new_states, rewards, terminated, truncated, _ = env.step(_actions(env))
        begun = new_states[over]
        assert (begun < 2).all()
        assert not rewards[over].any()
        assert not terminated[over].any()
        # Waiting goes from 0 to 0 or 1, and from 1 to an end.
        assert (new_states[~over & (states == 0)] < 2).all()
        np.testing.assert_array_equal(terminated[~over], states[~over] == 1)
        np.testing.assert_array_equal(rewards, 1.0 * ((new_states == 3) & terminated))
        assert not truncated.any()
        resets += len(begun)
        states, over = new_states, terminated
    assert resets > 400  # more than one episode each, of 2.5 steps and one of reset


def test_second_episodes_are_the_same_however_they_begin(mdp: TabularMDP) -> None:
    starts = {}
    for mode in AutoresetMode:
        env = BatchedSepsisEnv(mdp, 50, autoreset_mode=mode, max_episode_steps=1)
        first, _ = env.reset(seed=1)
        starts[mode] = env.step(_actions(env))[0]
        if mode is AutoresetMode.NEXT_STEP:
            starts[mode] = env.step(_actions(env))[0]
        elif mode is AutoresetMode.DISABLED:
            starts[mode] = env.reset()[0]
    assert not torch.equal(first, starts[mode])
    assert all(torch.equal(begun, starts[mode]) for begun in starts.values())


def test_same_step_autoreset(chain_mdp: TabularMDP) -> None:
    env = _waiting(chain_mdp, AutoresetMode.SAME_STEP)
    states, _ = env.reset(seed=0)
    for _ in range(6):
        new_states, rewards, terminated, _, infos = env.step(_actions(env))
        np.testing.assert_array_equal(terminated, states == 1)
        np.testing.assert_array_equal(infos["_final_obs"], terminated)
        assert (infos["final_obs"][~terminated] == 0).all()
        final = infos["final_obs"][terminated]
        assert ((final == 2) | (final == 3)).all()
        np.testing.assert_array_equal(rewards[terminated], 1.0 * (final == 3))
        assert (infos["final_info"]["state_vector"] == 0).all()  # as the ends have it
        np.testing.assert_array_equal(infos["final_info"]["_sofa_score"], terminated)
        assert (new_states < 2).all()
        np.testing.assert_array_equal(infos["sofa_score"], np.array([4.0, 9.0])[new_states])
        states = new_states


def test_same_step_keeps_the_last_observation_without_infos(chain_mdp: TabularMDP) -> None:
    env = _waiting(chain_mdp, AutoresetMode.SAME_STEP, info=False)
    assert env.reset(seed=0)[1] == {}
    infos = env.step(_actions(env))[-1]
    assert infos.keys() == {"final_obs", "_final_obs"}


def test_disabled_autoreset_leaves_the_finished_where_they_are(chain_mdp: TabularMDP) -> None:
    env = _waiting(chain_mdp, AutoresetMode.DISABLED)
    states, _ = env.reset(seed=0)
    over = torch.zeros(400, dtype=torch.bool)
    total = torch.zeros(400, dtype=torch.float64)
    for _ in range(40):
        new_states, rewards, terminated, truncated, _ = env.step(_actions(env))
        assert (new_states[over] == states[over]).all()
        assert not rewards[over].any()
        assert terminated[over].all()
        total += rewards
        states, over = new_states, terminated | truncated
    assert over.all()
    np.testing.assert_array_equal(total, 1.0 * (states == 3))

    # A part begins again; the others stay.
    mask = torch.arange(400) % 2 == 0
    again, infos = env.reset(options={"reset_mask": mask})
    assert (again[mask] < 2).all()
    assert (again[~mask] == states[~mask]).all()
    np.testing.assert_array_equal(infos["_sofa_score"], mask)
    _, _, terminated, _, _ = env.step(_actions(env))
    assert terminated[~mask].all()
    np.testing.assert_array_equal(terminated[mask], again[mask] == 1)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_are_truncated_at_the_limit(waiting_mdp: TabularMDP, mode: AutoresetMode) -> None:
    for limit, options in ((7, {}), (3, {"max_episode_steps": 3})):
        env = BatchedSepsisEnv(waiting_mdp, 5, autoreset_mode=mode, **options)
        env.reset(seed=0)
        for _ in range(2):
            for step in range(1, limit + 1):
                _, _, terminated, truncated, _ = env.step(_actions(env))
                assert not terminated.any()
                assert truncated.all() == truncated.any() == (step == limit)
            if mode is AutoresetMode.NEXT_STEP:
                assert not env.step(_actions(env))[3].any()
            elif mode is AutoresetMode.DISABLED:
                assert env.step(_actions(env))[3].all()
                env.reset()


def test_the_limit_counts_as_that_of_gymnasium(mdp: TabularMDP) -> None:
    # An end that comes with the last step is both, as in gymnasium's TimeLimit.
    env = BatchedSepsisEnv(mdp, 2000, max_episode_steps=1, info=False)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(_actions(env))
    assert truncated.all()
    assert 0 < terminated.sum() < 2000
    assert BatchedSepsisEnv(mdp, 1).max_episode_steps == 500


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1, 25], "action 25 of environment 2 is out of range; accepted: 0 to 24"),
        ([0, -1, 25], "action -1 of environment 1"),
        ([0, 1], r"actions have shape \(2,\); accepted: \(3,\)"),
        ([[0, 1, 2]], "shape"),
        ([0.0, 1.0, 2.0], r"actions have type torch\.float64"),
        ([True, False, True], r"actions have type torch\.bool"),
    ],
)
def test_wrong_actions(mdp: TabularMDP, actions: list[Any], message: str) -> None:
    env = BatchedSepsisEnv(mdp, 3)
    env.reset(seed=0)
    for given in (np.array(actions), torch.tensor(actions, dtype=None)):
        if given.dtype == torch.float32:
            continue
        with pytest.raises(ValueError, match=message):
            env.step(given)


def test_wrong_numbers_and_options(mdp: TabularMDP) -> None:
    with pytest.raises(InputError, match="num_envs is 0"):
        BatchedSepsisEnv(mdp, 0)
    with pytest.raises(InputError, match="max_episode_steps is 0"):
        BatchedSepsisEnv(mdp, 1, max_episode_steps=0)
    env = BatchedSepsisEnv(mdp, 3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(_actions(env))
    with pytest.raises(ValueError, match="resets no environment"):
        env.reset(seed=0, options={"reset_mask": np.zeros(3, dtype=bool)})
    with pytest.raises(ValueError, match=r"options\['reset_mask'\] have type"):
        env.reset(seed=0, options={"reset_mask": np.ones(3)})
    with pytest.raises(ValueError, match=r"options\['patients'\] have shape"):
        env.reset(seed=0, options={"patients": torch.arange(4)})


# --- addressed draws --------------------------------------------------------------------------


def _trajectory(env: BatchedSepsisEnv, steps: int = 20, **reset: Any) -> torch.Tensor:
    states = [env.reset(**reset)[0]]
    for step in range(steps):
        states.append(env.step(_actions(env, step % env.mdp.n_actions))[0])
    return torch.stack(states)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_patients_course_does_not_depend_on_the_batch(mdp: TabularMDP, mode) -> None:
    def run(patients: torch.Tensor, seed: int = 9) -> torch.Tensor:
        env = BatchedSepsisEnv(mdp, len(patients), autoreset_mode=mode, info=False)
        return _trajectory(env, seed=seed, options={"patients": patients})

    everyone = run(torch.arange(60))
    some = torch.tensor([3, 59, 17, 4])
    assert torch.equal(run(some), everyone[:, some])
    assert torch.equal(run(torch.arange(60)), everyone)
    assert not torch.equal(run(torch.arange(60), seed=10), everyone)
    default = BatchedSepsisEnv(mdp, 60, autoreset_mode=mode)  # patients 0, 1, 2, ... with infos
    assert torch.equal(_trajectory(default, seed=9), everyone)


def test_episodes_and_seeds_of_an_environment(mdp: TabularMDP) -> None:
    env = BatchedSepsisEnv(mdp, 50, info=False)
    first = _trajectory(env, seed=4)
    second = _trajectory(env)
    third = _trajectory(env)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(_trajectory(env, seed=4), first)  # a seed begins anew
    assert torch.equal(_trajectory(env), second)
    unseeded = [_trajectory(BatchedSepsisEnv(mdp, 50, info=False)) for _ in range(2)]
    assert not torch.equal(*unseeded)


def test_a_masked_reset_goes_on_to_the_next_episode_of_those_alone(mdp: TabularMDP) -> None:
    env = BatchedSepsisEnv(mdp, 50, info=False, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=4)
    second, _ = env.reset()
    env.reset(seed=4)
    mask = torch.arange(50) < 20
    begun, _ = env.reset(options={"reset_mask": mask})
    assert torch.equal(begun[mask], second[mask])
    env.reset(seed=4)
    assert torch.equal(env.reset(seed=4, options={"reset_mask": mask})[0], env.reset(seed=4)[0])


# --- on a GPU ---------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_steps_as_the_cpu_does(mdp: TabularMDP) -> None:
    env = BatchedSepsisEnv(mdp, 64, device="cuda")
    _, infos = env.reset(seed=0)
    assert infos["state_vector"].device.type == "cuda"
    ours = BatchedSepsisEnv(mdp, 64)
    ours.reset(seed=0)
    for _ in range(20):
        expected, got = ours.step(_actions(ours, 5)), env.step(_actions(env, 5))
        for a, b in zip(expected[:4], got[:4], strict=True):
            assert torch.equal(a, b.cpu())
