"""Which episodes `RecordedEpisodes` makes, keeps, reads and splits."""

from dataclasses import replace

import numpy as np
import pytest

from sepsis_rl.data import OfflineDataModule, Transitions, behavior_policy, collect
from sepsis_rl.data import records as records_module
from sepsis_rl.errors import InputError

# -- simulated and cached ----------------------------------------------------------------------


def test_the_cache_is_reused_and_not_rewritten(make, tmp_path, monkeypatch):
    first = make(cache_dir=str(tmp_path / "new"))
    files = sorted((tmp_path / "new").iterdir())
    assert len(files) == 3

    def states():
        return [(file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files]

    before = states()
    monkeypatch.setattr(records_module, "collect", None)
    second = make(cache_dir=str(tmp_path / "new"))
    assert states() == before
    assert sorted((tmp_path / "new").iterdir()) == files
    assert second.content_hash == first.content_hash


def test_the_name_of_a_cache_file_says_what_it_holds(make, mdp, tmp_path):
    seeds = {"seed": 3, "held_out_seed": 8, "report_seed": 9}
    make(cache_dir=str(tmp_path), policy="random", report_episodes=10, **seeds)
    version = mdp.environment_version
    assert {file.name for file in tmp_path.iterdir()} == {
        f"icu-sepsis-v2_{version}_random_60-episodes_seed-3.npz",
        f"icu-sepsis-v2_{version}_random_20-episodes_seed-8.npz",
        f"icu-sepsis-v2_{version}_random_10-episodes_seed-9.npz",
    }


def test_training_held_out_and_report_episodes(make, mdp):
    data = make(report_episodes=10)
    policy = behavior_policy(mdp, "clinician")
    for ours, episodes, seed in (
        (data.train, 60, 42),
        (data.held_out, 20, 1_000_042),
        (data.report, 10, 2_000_042),
    ):
        expected = collect(mdp, policy, episodes=episodes, seed=seed)
        assert ours.content_hash == expected.content_hash
        assert ours.provenance == expected.provenance
    assert (data.n_states, data.n_actions) == (mdp.n_states, mdp.n_actions)
    assert data.mdp is mdp
    pairs = np.zeros((mdp.n_states, mdp.n_actions))
    np.add.at(pairs, (data.train.observation, data.train.action), 1)
    np.testing.assert_array_equal(data.pair_counts, pairs)


@pytest.mark.parametrize("seed", [0, 42, 10**6, 2**40])
def test_no_two_sets_have_one_seed(seed):
    data = OfflineDataModule(seed=seed)
    assert len({seed, data.held_out_seed, data.report_seed}) == 3
    for seeds in (
        {"held_out_seed": seed},
        {"report_seed": seed},
        {"held_out_seed": seed + 1, "report_seed": seed + 1},
        {"held_out_seed": seed + 2_000_000},
    ):
        with pytest.raises(InputError, match="two sets would be the same episodes"):
            OfflineDataModule(seed=seed, **seeds)
    assert OfflineDataModule(path="file", seed=1, held_out_seed=1).held_out_seed == 1


def test_a_cache_file_of_other_contents_is_refused(make, tmp_path):
    make(cache_dir=str(tmp_path))
    (train,) = tmp_path.glob("*_60-episodes_*")
    (held_out,) = tmp_path.glob("*_20-episodes_*")
    train.write_bytes(held_out.read_bytes())
    with pytest.raises(InputError, match="remove it, and it is collected again") as error:
        make(cache_dir=str(tmp_path))
    assert str(train) in str(error.value)


def test_data_before_setup_is_an_error():
    with pytest.raises(RuntimeError, match="setup"):
        _ = OfflineDataModule().train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, r"data\.episodes=0 .* from 1 to 2\*\*63 - 1"),
        ({"held_out_episodes": 0}, r"data\.held_out_episodes=0"),
        ({"batch_size": 0}, r"data\.batch_size=0"),
        ({"seed": -1}, r"data\.seed=-1 .* from 0 to 2\*\*63 - 1"),
        ({"held_out_seed": -1}, r"data\.held_out_seed=-1"),
        # 42 modulo 2**64: the training episodes themselves.
        ({"held_out_seed": 2**64 + 42}, r"data\.held_out_seed=18446744073709551658"),
        ({"held_out_share": 0.0}, r"data\.held_out_share=0\.0"),
        ({"held_out_share": 1.0}, r"data\.held_out_share=1\.0"),
        ({"held_out_share": float("nan")}, r"data\.held_out_share=nan"),
        ({"policy": "doctor"}, r"data\.policy=doctor .* clinician, random, epsilon_clinician"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        OfflineDataModule(**options)


# -- a file ------------------------------------------------------------------------------------


@pytest.fixture
def own(mdp, tmp_path):
    """A file, with columns and provenance as asked for."""

    def own(provenance=None, **columns):
        data = collect(mdp, behavior_policy(mdp, "epsilon_clinician"), episodes=50, seed=1)
        provenance = replace(data.provenance, **(provenance or {}))
        replace(data, provenance=provenance, **columns).save(tmp_path / "own.npz", overwrite=True)
        return str(tmp_path / "own.npz")

    return own


def test_a_file_is_split_by_whole_episodes(make, own, tmp_path):
    path = own()
    recorded = Transitions.load(path)
    data = make(path=path, cache_dir=str(tmp_path / "unused"))
    assert not (tmp_path / "unused").exists()
    held_out_ids = set(data.held_out.episode.tolist())
    train_ids = set(data.train.episode.tolist())
    report_ids = set(data.report.episode.tolist())
    assert (len(train_ids), len(held_out_ids), len(report_ids)) == (30, 10, 10)
    assert train_ids | held_out_ids | report_ids == set(range(50))  # so no two sets share any
    assert held_out_ids != set(range(40, 50))  # a record's order may mean something
    parts = ((data.train, train_ids), (data.held_out, held_out_ids), (data.report, report_ids))
    for part, ids in parts:
        expected = recorded.select_episodes(sorted(ids))
        assert part.content_hash == expected.content_hash
        assert part.provenance.episodes == len(ids)
    assert make(path=path).content_hash == data.content_hash
    assert make(path=path, seed=43).content_hash != data.content_hash
    assert make(path=path, held_out_share=0.5).held_out.n_episodes == 25


@pytest.mark.parametrize("shares", [(0.001, 0.2), (0.2, 0.001), (0.495, 0.496), (0.5, 0.5)])
def test_a_share_that_leaves_a_part_empty(make, own, shares):
    with pytest.raises(InputError, match=r"each part .* need one|nothing to train on"):
        make(path=own(), held_out_share=shares[0], report_share=shares[1])


def test_a_missing_file(make, tmp_path):
    with pytest.raises(InputError, match=r"data\.path=.*nowhere\.npz: there is no such file"):
        make(path=str(tmp_path / "nowhere.npz"))


def test_a_file_that_breaks_a_rule_of_the_tables(make, own):
    reward = np.zeros_like(Transitions.load(own()).reward)
    with pytest.raises(InputError, match=r"own\.npz: row \d+.*: reward"):
        make(path=own(reward=reward))


def test_a_file_of_another_environment_or_version(make, own):
    with pytest.raises(InputError, match="recorded in Other-v0; accepted is Sepsis/ICU-Sepsis-v2"):
        make(path=own({"environment_id": "Other-v0"}))
    with pytest.warns(UserWarning, match=r"recorded in version 1\.0"):
        make(path=own({"environment_version": "1.0"}))
