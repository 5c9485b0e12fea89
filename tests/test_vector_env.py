"""ICU-Sepsis as gymnasium makes it, and gymnasium's wrappers and checkers on it."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers

import sepsis_rl  # noqa: F401  (which registers the environments)
from sepsis_rl.envs import BatchedSepsisEnv
from sepsis_rl.errors import InputError
from sepsis_rl.registration import BATCHED_ID, ENVIRONMENT_ID


def make(num_envs=20, **options):
    return gymnasium.make_vec(BATCHED_ID, num_envs=num_envs, **options)


@pytest.mark.parametrize(
    "imports",
    [
        "import gymnasium, sepsis_rl",
        "import sepsis_rl, gymnasium",
        "import icu_sepsis, sepsis_rl, gymnasium",
        "import sepsis_rl, gymnasium, icu_sepsis",
    ],
)
def test_the_real_environment_is_known_in_any_order_of_imports(imports: str) -> None:
    script = (
        f"import sys, warnings; warnings.simplefilter('error', UserWarning); {imports}\n"
        f"env = gymnasium.make('{ENVIRONMENT_ID}')\n"
        "assert 'torch' not in sys.modules\n"
        f"assert gymnasium.spec('{ENVIRONMENT_ID}').entry_point == 'icu_sepsis:icu_sepsis_flat'\n"
        "print(env.spec.max_episode_steps, env.reset(seed=0)[0] in env.observation_space)"
    )
    words = [sys.executable, "-c", script]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ran.stdout == "500 True\n"
    assert "icu_sepsis" in imports or ran.stderr == ""


@pytest.mark.slow
def test_gymnasium_alone_finds_the_batched_one_by_its_module() -> None:
    script = (
        f"import gymnasium; envs = gymnasium.make_vec('sepsis_rl:{BATCHED_ID}', num_envs=1000,"
        " vectorization_mode='vector_entry_point'); print(envs.reset(seed=0)[0].shape)"
    )
    words = [sys.executable, "-c", script]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("(1000,)\n", "")


def test_the_registered_limit_is_the_environments(mdp) -> None:
    for name in (BATCHED_ID, ENVIRONMENT_ID):
        assert gymnasium.spec(name).max_episode_steps == mdp.max_episode_steps
    assert make().unwrapped.max_episode_steps == mdp.max_episode_steps
    assert make(max_episode_steps=3).unwrapped.max_episode_steps == 3


def test_what_it_returns_lies_in_its_spaces_and_is_that_of_the_tensors(mdp) -> None:
    envs, theirs = make(), BatchedSepsisEnv(mdp, 20)
    rng = np.random.default_rng(0)
    states, infos = envs.reset(seed=3)
    assert torch.equal(torch.tensor(states), theirs.reset(seed=3)[0])
    assert infos == {}
    for _ in range(12):
        assert states in envs.observation_space
        actions = rng.integers(mdp.n_actions, size=20)
        assert actions in envs.action_space
        states, *others = envs.step(actions)
        expected = theirs.step(actions)
        for ours, tensor in zip((states, *others[:3]), expected[:4], strict=True):
            assert isinstance(ours, np.ndarray)
            np.testing.assert_array_equal(ours, tensor)
            assert ours.dtype == tensor.numpy().dtype


def test_tensors_on_request() -> None:
    envs = make(arrays="torch", info=True, autoreset_mode="Disabled")
    assert type(envs) is BatchedSepsisEnv
    assert isinstance(envs.reset(seed=0)[1]["sofa_score"], torch.Tensor)
    with pytest.raises(InputError, match="arrays=jax cannot be used: give numpy or torch"):
        make(arrays="jax")


def test_the_spec_makes_it_again() -> None:
    envs = make(inadmissible_action_strategy="terminate", autoreset_mode="SameStep", info=True)
    again = gymnasium.make_vec(envs.unwrapped.spec)
    assert again.num_envs == 20
    assert again.unwrapped.strategy == "terminate"
    assert again.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_wrappers_count_episodes_and_list_infos(mode: AutoresetMode) -> None:
    envs = make(400, info=True, autoreset_mode=mode)
    envs = wrappers.DictInfoToList(wrappers.RecordEpisodeStatistics(envs, buffer_length=10**6))
    _, infos = envs.reset(seed=0)
    assert len(infos) == 400
    assert infos[0].keys() == {"admissible_actions", "state_vector", "sofa_score"}
    lengths, returns, current, over = [], [], np.zeros(400, dtype=int), np.zeros(400, dtype=bool)
    for _ in range(30):
        _, rewards, terminated, truncated, infos = envs.step(np.zeros(400, dtype=int))
        current = np.where(over, 0, current + 1) if mode is AutoresetMode.NEXT_STEP else current + 1
        over = terminated | truncated
        lengths += current[over].tolist()
        returns += rewards[over].tolist()
        assert [info["episode"]["l"] for info in infos if "episode" in info] == [*current[over]]
        if mode is AutoresetMode.SAME_STEP:
            assert all(("final_info" in info) == end for info, end in zip(infos, over, strict=True))
            current[over] = 0
    assert len(lengths) > 400
    assert list(envs.env.length_queue) == lengths
    assert list(envs.env.return_queue) == returns
    assert 0.6 < np.mean(returns) < 0.9


def test_wrappers_turn_arrays_into_tensors_and_states_into_features(mdp) -> None:
    tensors = wrappers.NumpyToTorch(make())
    states, _ = tensors.reset(seed=1)
    stepped = tensors.step(torch.zeros(20, dtype=torch.int64))
    expected = BatchedSepsisEnv(mdp, 20)
    assert torch.equal(states, expected.reset(seed=1)[0])
    for ours, tensor in zip(stepped[:4], expected.step(np.zeros(20, dtype=int))[:4], strict=True):
        assert torch.equal(ours, tensor)

    features, _ = wrappers.FlattenObservation(make()).reset(seed=1)
    assert features.shape == (20, mdp.n_states)
    np.testing.assert_array_equal(features.argmax(axis=1), states)

    clipped = wrappers.ClipReward(make(), max_reward=0.5)
    clipped.reset(seed=1)
    rewards = np.stack([clipped.step(np.zeros(20, dtype=int))[1] for _ in range(12)])
    assert set(rewards.ravel()) == {0.0, 0.5}


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
def test_the_single_one_passes_gymnasiums_checks_but_for_lists_that_it_hands_out_twice() -> None:
    env = gymnasium.make(BATCHED_ID, disable_env_checker=True)
    assert env.spec.id == BATCHED_ID
    # icu_sepsis hands out its own lists of admissible actions; it is the last check but two.
    with pytest.raises(AssertionError, match="share an object"):
        check_env(env.unwrapped, skip_render_check=True)
