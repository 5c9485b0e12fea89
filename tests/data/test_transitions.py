"""The rules of a data set and its file, on three episodes written out by hand."""

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sepsis_rl.data import transitions as transitions_module
from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.transitions import COLUMNS, Provenance, Transitions
from sepsis_rl.errors import InputError

N_STATES, N_ACTIONS = 5, 3
DEATH, SURVIVAL = 3, 4
TABLES = {
    "terminal": np.array([False, False, False, True, True]),
    "rewards": np.array([0.0, 0.0, 0.0, 0.0, 1.0]),
}

SURVIVAL_RULE = "reward is 0, or 1 where a stay that was survived is terminated"

PROVENANCE = Provenance(
    environment_id="Test-v0",
    environment_version="1.2.3",
    policy="by hand",
    seed=7,
    episodes=3,
    source="written out",
)

# Episode 0 ends in survival, episode 1 in death, episode 2 breaks off.
HAND_WRITTEN = {
    "episode": [0, 0, 1, 1, 1, 2],
    "step": [0, 1, 0, 1, 2, 0],
    "observation": [0, 1, 2, 0, 0, 1],
    "action": [0, 1, 2, 1, 1, 0],
    "reward": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
    "next_observation": [1, SURVIVAL, 0, 0, DEATH, 2],
    "terminated": [False, True, False, False, True, False],
    "truncated": [False, False, False, False, False, True],
}


def make_transitions(changes=None, provenance=PROVENANCE):
    """The hand-written rows, with `changes` {column: {row: value}}."""
    columns = {name: np.array(values) for name, values in HAND_WRITTEN.items()}
    for name, rows in (changes or {}).items():
        for row, value in rows.items():
            columns[name][row] = value
    return Transitions(**columns, provenance=provenance)


def validate(transitions):
    check_rules(transitions, N_STATES, N_ACTIONS, **TABLES)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "hand.npz"
    make_transitions().save(path)
    return path


# -- columns -----------------------------------------------------------------------------------


def test_columns_have_their_dtypes_and_are_read_only():
    """Those of the caller stay as they are."""
    columns = {name: np.array(values, COLUMNS[name]) for name, values in HAND_WRITTEN.items()}
    transitions = Transitions(**columns, provenance=PROVENANCE)
    assert all(column.flags.writeable for column in columns.values())
    assert len(transitions) == 6
    assert transitions.n_episodes == 3
    for name, dtype in COLUMNS.items():
        column = getattr(transitions, name)
        assert column.dtype == dtype
        np.testing.assert_array_equal(column, HAND_WRITTEN[name])
        assert not column.flags.writeable


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("action", np.zeros(6), "column action is float64; it takes int64"),
        ("action", np.zeros(6, dtype=np.uint64), "column action is uint64"),
        ("step", np.zeros(6, dtype=bool), "column step is bool"),
        ("reward", np.zeros(6, dtype=int), "column reward is int64; it takes float32"),
        ("terminated", np.zeros(6, dtype=int), "column terminated is int64; it takes bool"),
        ("reward", np.zeros(5), r"column reward has shape \(5,\)"),
        ("observation", np.zeros((6, 1), dtype=int), r"column observation has shape \(6, 1\)"),
    ],
)
def test_a_wrong_column_is_named(name, values, message):
    columns = {name: np.array(values) for name, values in HAND_WRITTEN.items()} | {name: values}
    with pytest.raises(InputError, match=message):
        Transitions(**columns, provenance=PROVENANCE)


def test_repr_says_what_it_is():
    assert repr(make_transitions()) == (
        "Transitions(6 rows, 3 episodes of by hand in Test-v0 1.2.3, seed 7, written out)"
    )


# -- what is computed from them ----------------------------------------------------------------


def test_returns():
    np.testing.assert_array_equal(make_transitions().returns(), [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(
        make_transitions({"reward": {2: 0.5, 3: 0.25}}).returns(), [1.0, 0.75, 0.0]
    )


def test_counts():
    transitions = make_transitions()
    counts = transitions.counts(N_STATES, N_ACTIONS)
    going_on = np.zeros((5, 3, 5), dtype=int)
    for row in [(0, 0, 1), (2, 2, 0), (0, 1, 0), (1, 0, 2)]:
        going_on[row] += 1
    np.testing.assert_array_equal(counts.transitions.toarray().reshape(5, 3, 5), going_on)
    pairs = going_on.sum(-1)
    pairs[[1, 0], [1, 1]] += 1  # one survived, one died
    np.testing.assert_array_equal(counts.pairs, pairs)
    np.testing.assert_array_equal(counts.reward_sums, np.eye(5, 3) * [0, 1, 0])
    np.testing.assert_allclose(counts.start, [1 / 3, 1 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(counts.mean_return, [1 / 3])


def test_select_episodes_by_mask_and_by_id():
    transitions = make_transitions()
    by_mask = transitions.select_episodes([True, False, True])
    by_id = transitions.select_episodes([2, 0])
    for chosen in (by_mask, by_id):
        np.testing.assert_array_equal(chosen.episode, [0, 0, 2])
        np.testing.assert_array_equal(chosen.next_observation, [1, SURVIVAL, 2])
        assert chosen.provenance.episodes == 2
        validate(chosen)
    with pytest.raises(InputError, match="no episode 3"):
        transitions.select_episodes([0, 3])
    with pytest.raises(InputError, match="3 episodes"):
        transitions.select_episodes([True, False])


def test_content_hash_is_of_the_columns():
    transitions = make_transitions()
    assert transitions.content_hash == make_transitions().content_hash
    other_origin = make_transitions(provenance=replace(PROVENANCE, seed=8))
    assert transitions.content_hash == other_origin.content_hash
    hashes = {transitions.content_hash}
    for name, change in (
        ("episode", {5: 9}),
        ("step", {5: 9}),
        ("observation", {0: 2}),
        ("action", {0: 2}),
        ("reward", {0: 0.5}),
        ("next_observation", {5: 0}),
        ("terminated", {5: True}),
        ("truncated", {1: True}),
    ):
        hashes.add(make_transitions({name: change}).content_hash)
    assert len(hashes) == 9


# -- rules -------------------------------------------------------------------------------------


def test_good_rows_pass():
    """Also where an episode terminates and is truncated in one step."""
    for changes in ({}, {"truncated": {4: True}}):
        validate(make_transitions(changes))


@pytest.mark.parametrize(
    ("changes", "rows", "rule"),
    [
        ({"observation": {0: -1}}, "0", "observation lies between 0 and"),
        ({"next_observation": {2: -1, 4: -3}}, "2, 4", "next_observation lies between 0 and"),
        ({"action": {5: -1}}, "5", "action lies between 0 and"),
        ({"reward": {1: np.nan}}, "1", "reward is a finite number"),
        ({"reward": {1: np.inf, 2: -np.inf}}, "1, 2", "reward is a finite number"),
        ({"reward": {3: 1e300}}, "3", "reward is a finite number"),
        ({"episode": {5: 0}}, "5", "rows stand in the order of their episodes"),
        ({"step": {0: 1, 1: 2}}, "0, 1", "step counts 0, 1, 2, ..."),
        ({"step": {4: 3}}, "4", "step counts 0, 1, 2, ..."),
        ({"step": {3: 0}}, "3", "step counts 0, 1, 2, ..."),
        ({"terminated": {3: True}}, "3", "an episode ends once, in its last row"),
        ({"truncated": {0: True}}, "0", "an episode ends once, in its last row"),
        ({"terminated": {1: False}}, "1", "the last row of an episode is terminated or truncated"),
        ({"truncated": {5: False}}, "5", "the last row of an episode is terminated or truncated"),
        ({"next_observation": {2: 1}}, "2", "next_observation is the observation of the row after"),
    ],
)
def test_a_broken_rule_is_refused_on_load(tmp_path, changes, rows, rule):
    path = tmp_path / "bad.npz"
    make_transitions(changes).save(path)
    with pytest.raises(InputError) as error:
        Transitions.load(path)
    assert str(error.value).startswith(f"{path}: row {rows}: {rule}")


def test_a_broken_rule_shows_the_row(tmp_path):
    path = tmp_path / "bad.npz"
    make_transitions({"action": {5: -1}}).save(path)
    with pytest.raises(InputError, match=r"; row 5 holds episode 2, step 0, .*action -1"):
        Transitions.load(path)


@pytest.mark.parametrize(
    ("changes", "rows", "rule"),
    [
        ({"observation": {5: 5}}, "5", "observation lies between 0 and 4"),
        ({"next_observation": {5: 5}}, "5", "next_observation lies between 0 and 4"),
        ({"action": {2: 3}}, "2", "action lies between 0 and 2"),
        ({"observation": {2: DEATH}}, "2", "observation is a state that is not terminal"),
        (
            {"terminated": {4: False}, "truncated": {4: True}},
            "4",
            "terminated is true where next_observation is a terminal state, and only there",
        ),
        (
            {"next_observation": {4: 2}},
            "4",
            "terminated is true where next_observation is a terminal state, and only there",
        ),
        ({"reward": {1: 0.0}}, "1", "reward is that of entering next_observation"),
        ({"reward": {0: 1.0, 4: 1.0}}, "0, 4", "reward is that of entering next_observation"),
        ({"reward": {0: 1.0}}, "0", SURVIVAL_RULE),  # before the end
        ({"reward": {4: 0.5, 5: 2.0}}, "4, 5", SURVIVAL_RULE),
        ({"reward": {1: -1.0, 4: 1.0}}, "1", SURVIVAL_RULE),  # the sign of an outcome
        ({"reward": {5: 1.0}}, "5", SURVIVAL_RULE),  # of a stay that is cut off
    ],
)
def test_a_rule_of_the_tables_or_of_survival(changes, rows, rule):
    transitions = make_transitions(changes)
    check_rules(transitions)  # without these rules there is nothing to see
    further = {"survival": True} if rule == SURVIVAL_RULE else TABLES
    with pytest.raises(InputError) as error:
        check_rules(transitions, N_STATES, N_ACTIONS, **further, where="some.npz")
    assert str(error.value).startswith(f"some.npz: row {rows}: {rule}; row {rows[0]} holds ")


def test_rewards_that_are_survival_pass():
    check_rules(make_transitions({"reward": {1: 1.0, 4: 0.0}}), survival=True)


def test_only_the_first_bad_rows_are_named():
    transitions = make_transitions({"action": dict.fromkeys(range(6), 9)})
    with pytest.raises(InputError, match=r"row 0, 1, 2, 3, 4, \.\.\. \(6 rows\): action"):
        validate(transitions)


def test_no_rows_are_refused(tmp_path):
    path = tmp_path / "empty.npz"
    columns = {name: np.zeros(0, dtype) for name, dtype in COLUMNS.items()}
    empty = Transitions(**columns, provenance=replace(PROVENANCE, episodes=0))
    assert empty.n_episodes == len(empty.returns()) == 0
    empty.save(path)
    with pytest.raises(InputError, match="it has no rows") as error:
        Transitions.load(path)
    assert str(path) in str(error.value)


def test_number_of_episodes_is_that_of_the_provenance():
    with pytest.raises(InputError, match="says 4 episodes and it holds 3"):
        validate(make_transitions(provenance=replace(PROVENANCE, episodes=4)))


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [7, None])
def test_round_trip(tmp_path, seed):
    """The file is readable without this package, too."""
    path, provenance = tmp_path / "new" / "hand.npz", replace(PROVENANCE, seed=seed)
    make_transitions(provenance=provenance).save(path)
    loaded = Transitions.load(path)
    assert loaded.provenance == provenance
    with np.load(path, allow_pickle=False) as archive:
        fields = json.loads(str(archive["provenance"]))
        for name, dtype in COLUMNS.items():
            for column in (getattr(loaded, name), archive[name]):
                np.testing.assert_array_equal(column, HAND_WRITTEN[name])
                assert column.dtype == dtype
    assert fields["environment_id"] == "Test-v0"
    assert fields["content_hash"] == loaded.content_hash == make_transitions().content_hash


def test_save_refuses_to_overwrite(path):
    before = path.read_bytes()
    other = make_transitions({"action": {0: 2}})
    with pytest.raises(InputError, match=r"hand\.npz exists"):
        other.save(path)
    assert path.read_bytes() == before
    other.save(path, overwrite=True)
    assert Transitions.load(path).action[0] == 2


def test_a_failed_save_leaves_what_was(path, monkeypatch):
    before = path.read_bytes()

    def write_half(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transitions_module.np, "savez", write_half)
    with pytest.raises(InputError, match=r"hand\.npz cannot be written: No space left on device$"):
        make_transitions().save(path, overwrite=True)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


class _Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickles_are_refused_and_not_run(tmp_path):
    mark = tmp_path / "mark"
    plain = tmp_path / "plain.npz"
    plain.write_bytes(pickle.dumps(_Bomb(mark)))
    inside = tmp_path / "inside.npz"
    columns = {name: np.array(values) for name, values in HAND_WRITTEN.items()}
    columns["action"] = np.array([_Bomb(mark)] * 6, dtype=object)
    np.savez(inside, provenance=np.array("{}"), **columns)
    for path in (plain, inside):
        with pytest.raises(InputError, match="without pickled objects") as error:
            Transitions.load(path)
        assert str(path) in str(error.value)
    assert not mark.exists()


def change_arrays(path, changes=(), without=()):
    """Makes a file hold other arrays than `save` wrote."""
    with np.load(path) as archive:
        arrays = {**archive} | dict(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if name not in without})


def provenance_with(**fields):
    return {"provenance": np.array(json.dumps({**PROVENANCE.to_dict(), **fields}))}


def test_narrower_integers_are_taken(path):
    change_arrays(path, {"episode": np.array(HAND_WRITTEN["episode"], dtype=np.uint8)})
    assert Transitions.load(path).episode.dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "without", "message"),
    [
        ({}, ["reward"], "it takes .*'reward'"),
        ({}, ["provenance"], "it takes .*'provenance'"),
        ({"weight": np.ones(6)}, [], "it has .*'weight'"),
        ({"action": np.zeros(6)}, [], "column action is float64"),
        ({"action": np.array(["a"] * 6)}, [], "column action is <U1"),
        ({"reward": np.zeros(7, dtype=np.float32)}, [], "column reward has shape"),
        ({"episode": np.array(3)}, [], "column episode has shape"),
        ({"action": np.array([0, 1, 2, 1, 1, 2])}, [], "content hash"),
        ({"provenance": np.array("no JSON")}, [], "cannot be read as a data set"),
        ({"provenance": np.array("[1]")}, [], "provenance is a JSON object"),
        ({"provenance": np.array("[" * 100_000)}, [], "cannot be read as a data set"),
        ({"provenance": np.array('{"seed": 1}')}, [], "provenance has"),
        (provenance_with(episodes="3"), [], "episodes is '3', of the wrong type"),
        (provenance_with(seed=True), [], "seed is True, of the wrong type"),
    ],
)
def test_a_malformed_file_is_named(path, changes, without, message):
    change_arrays(path, changes, without)
    with pytest.raises(InputError, match=message) as error:
        Transitions.load(path)
    assert str(error.value).startswith(str(path))


def save_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(6))


def encrypt(path):
    """Says of the first array that a password opens it."""
    make_transitions().save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def write_archive(path, suffix, content):
    with zipfile.ZipFile(path, "w") as file:
        for name in [*COLUMNS, "provenance"]:
            file.writestr(name + suffix, content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "there is no such file"),
        (lambda path: path.touch(), "it is no .npz file"),
        (lambda path: path.write_text("episode,step\n0,0\n"), "it is no .npz file"),
        (save_array, "it is no .npz file"),
        (encrypt, "cannot be read"),
        (lambda path: write_archive(path, "", "text"), "cannot be read"),
        (lambda path: write_archive(path, ".npy", b"\x93NUMPY\x01\x00\x02\x00{\n"), "cannot be"),
    ],
)
def test_other_kinds_of_files_are_refused(tmp_path, write, message):
    path = tmp_path / "other.npz"
    write(path)
    with pytest.raises(InputError) as error:
        Transitions.load(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
