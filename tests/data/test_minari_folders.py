"""Minari data sets: written for others, and read from others."""

import json
import sys

import minari
import numpy as np
import pytest

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.data.minari_folders import read_minari, write_minari
from sepsis_rl.data.transitions import COLUMNS, Provenance, Transitions
from sepsis_rl.errors import InputError

# Episode 0 ends in survival, 1 is cut off, 2 ends in the step in which it would be cut off.
EPISODES = Transitions(
    episode=[0, 0, 1, 2, 2],
    step=[0, 1, 0, 0, 1],
    observation=[3, 1, 2, 0, 2],
    action=[4, 0, 1, 2, 3],
    reward=np.array([0, 1, 0, 0, 0], dtype=np.float32),
    next_observation=[1, 5, 0, 2, 6],
    terminated=np.array([0, 1, 0, 0, 1], dtype=bool),
    truncated=np.array([0, 0, 1, 0, 1], dtype=bool),
    provenance=Provenance("table", "", "nurses", None, 3, "stays.csv"),
)


@pytest.fixture
def folder(tmp_path):
    write_minari(EPISODES, tmp_path / "made" / "records", 7, 5)
    return tmp_path / "made" / "records"


def change(folder, **entries):
    """Rewrites entries of a folder's metadata; None removes one."""
    metadata = json.loads((folder / "metadata.json").read_text()) | entries
    kept = {name: entry for name, entry in metadata.items() if entry is not None}
    (folder / "metadata.json").write_text(json.dumps(kept))


def test_minari_reads_what_was_written(folder):
    assert [path.name for path in folder.parent.iterdir()] == ["records"]
    data = minari.MinariDataset(folder)
    assert (data.total_episodes, data.total_steps) == (3, 5)
    assert (data.observation_space.n, data.action_space.n) == (7, 5)
    observations = [[3, 1, 5], [2, 0], [0, 2, 6]]
    ends = [([0, 1], [0, 0]), ([0], [1]), ([0, 1], [0, 1])]
    for episode, states, (terminated, truncated) in zip(data, observations, ends, strict=True):
        np.testing.assert_array_equal(episode.observations, states)
        np.testing.assert_array_equal(episode.terminations, terminated)
        np.testing.assert_array_equal(episode.truncations, truncated)
    np.testing.assert_array_equal(data[0].actions, [4, 0])
    np.testing.assert_array_equal(data[0].rewards, [0, 1])


def test_what_is_read_back_is_what_was_written(folder):
    data = read_minari(folder)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(data, name), getattr(EPISODES, name), err_msg=name)
    assert data.content_hash == EPISODES.content_hash
    assert data.provenance == EPISODES.provenance


def test_what_others_wrote_has_the_provenance_that_minari_knows(folder):
    spec = {"id": "Sepsis/ICU-Sepsis-v2", "entry_point": "nowhere:nothing"}
    packages = ["numpy>=2", "icu-sepsis==1.9"]
    change(folder, sepsis_rl=None, env_spec=json.dumps(spec), requirements=packages)
    data = read_minari(folder)
    assert data.content_hash == EPISODES.content_hash
    name = json.loads((folder / "metadata.json").read_text())["dataset_id"]
    expected = ("Sepsis/ICU-Sepsis-v2", "1.9", "nurses", None, 3, f"Minari {name}")
    assert data.provenance == Provenance(*expected)
    change(folder, env_spec=None, requirements=None, algorithm_name=None)
    expected = ("unknown", "unknown", "recorded", None, 3, f"Minari {name}")
    assert read_minari(folder).provenance == Provenance(*expected)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        # Minari would make the environment, and so run what `env_spec` names.
        ({"observation_space": None, "env_spec": '{"id": "a:b-v0"}'}, "names no observation_space"),
        ({"action_space": '{"type": "MultiBinary", "n": 5}'}, "has a space MultiBinary"),
        ({"total_episodes": 4}, "episode_3"),
        ({"total_episodes": 0}, "no episodes"),
        ({"data_format": "pickle"}, "pickle"),
        ({"sepsis_rl": {"seed": 1}}, "provenance"),
    ],
)
def test_a_folder_that_breaks_a_rule_is_refused(folder, entries, said):
    change(folder, **entries)
    with pytest.raises(InputError, match=f"records cannot be read as a Minari data set: .*{said}"):
        read_minari(folder)


def test_damage_is_noticed(folder):
    fields = {**EPISODES.provenance.to_dict(), "content_hash": "0"}
    change(folder, sepsis_rl=fields)
    with pytest.raises(InputError, match="do not match its content hash"):
        read_minari(folder)
    content = (folder / "main_data.hdf5").read_bytes()
    (folder / "main_data.hdf5").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as a Minari data set"):
        read_minari(folder)


def test_collected_either_way_a_run_has_the_same_data(lightning, tmp_path):
    options = ("--episodes=40", "--seed=5")
    shown = [
        lightning.main("collect", "--output=records", "--format=minari", *options).out,
        lightning.main("collect", "--output=records.npz", *options).out,
    ]
    assert shown[0].removeprefix("records: ") == shown[1].removeprefix("records.npz: ")
    loaded = [OfflineDataModule(path=path) for path in ("records", "records.npz")]
    for data in loaded:
        data.prepare_data()
    assert loaded[0].content_hash == loaded[1].content_hash
    assert loaded[0].train.provenance == loaded[1].train.provenance
    spec = minari.MinariDataset(tmp_path / "records").env_spec
    assert (spec.id, spec.entry_point) == ("Sepsis/ICU-Sepsis-v2", "icu_sepsis:icu_sepsis_flat")
    assert lightning("fit", "cql", "--data.path=records").code == 0
    again = lightning.main("collect", "--output=records", "--format=minari")
    assert (again.code, "exists already" in again.err) == (2, True)


def test_without_minari_one_line_says_how_to_install_it(lightning, tmp_path, monkeypatch):
    (tmp_path / "records").mkdir()
    ran = lightning("fit", "cql", "--data.path=records")
    assert (ran.code, "records: it is a folder, and no Minari data set" in ran.err) == (2, True)
    (tmp_path / "records" / "metadata.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "minari", None)
    for ran in (
        lightning.main("collect", "--output=new", "--format=minari"),
        lightning("fit", "cql", "--data.path=records"),
    ):
        assert ran.code == 2
        assert ran.err.count("\n") == 1
        assert "pip install 'minari[hdf5]" in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"records"}
