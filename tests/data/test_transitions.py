"""The rules of a data set and its file, on three episodes written out by hand."""

import io
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
TERMINAL = np.array([False, False, False, True, True])
REWARDS = np.array([0.0, 0.0, 0.0, 0.0, 1.0])

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


def validate(transitions, where="transitions"):
    check_rules(transitions, N_STATES, N_ACTIONS, terminal=TERMINAL, rewards=REWARDS, where=where)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "hand.npz"
    make_transitions().save(path)
    return path


# -- columns -----------------------------------------------------------------------------------


def test_columns_have_their_dtypes_and_are_read_only():
    transitions = make_transitions()
    assert len(transitions) == 6
    assert transitions.n_episodes == 3
    for name, dtype in COLUMNS.items():
        column = getattr(transitions, name)
        assert column.dtype == dtype
        np.testing.assert_array_equal(column, HAND_WRITTEN[name])
        with pytest.raises(ValueError, match="read-only"):
            column[0] = column[1]


def test_the_callers_array_stays_writable():
    columns = {name: np.array(values, COLUMNS[name]) for name, values in HAND_WRITTEN.items()}
    Transitions(**columns, provenance=PROVENANCE)
    columns["action"][0] = 1


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
    np.testing.assert_array_equal(transitions.pair_counts(N_STATES, N_ACTIONS), pairs)
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
    validate(make_transitions())
    check_rules(make_transitions())


def test_termination_and_truncation_in_one_step_pass():
    validate(make_transitions({"truncated": {4: True}}))


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
    ],
)
def test_a_rule_of_the_tables(changes, rows, rule):
    transitions = make_transitions(changes)
    check_rules(transitions)  # without the tables there is nothing to see
    with pytest.raises(InputError) as error:
        validate(transitions, where="some.npz")
    assert str(error.value) == f"some.npz: row {rows}: {rule}"


@pytest.mark.parametrize(
    ("rewards", "rows"),
    [
        ({0: 1.0}, "0"),  # before the end
        ({4: 0.5, 5: 2.0}, "4, 5"),
        ({1: -1.0, 4: 1.0}, "1"),  # the sign of an outcome
        ({1: 1.0, 4: 0.0, 5: 1.0}, None),
    ],
)
def test_rewards_that_are_survival(rewards, rows):
    transitions = make_transitions({"reward": rewards})
    check_rules(transitions)
    if rows is None:
        check_rules(transitions, survival=True)
        return
    with pytest.raises(InputError) as error:
        check_rules(transitions, survival=True, where="some.npz")
    rule = "reward is 0, or 1 at the end of a stay survived"
    assert str(error.value) == f"some.npz: row {rows}: {rule}"


def test_only_the_first_bad_rows_are_named():
    n = 1000
    transitions = Transitions(
        episode=np.arange(n),
        step=np.zeros(n, dtype=int),
        observation=np.zeros(n, dtype=int),
        action=np.full(n, 9),
        reward=np.zeros(n),
        next_observation=np.ones(n, dtype=int),
        terminated=np.zeros(n, dtype=bool),
        truncated=np.ones(n, dtype=bool),
        provenance=replace(PROVENANCE, episodes=n),
    )
    with pytest.raises(InputError, match=r"row 0, 1, 2, 3, 4, \.\.\. \(1,000 rows\): action"):
        validate(transitions)


def test_no_rows_are_refused(tmp_path):
    path = tmp_path / "empty.npz"
    columns = {name: np.zeros(0, dtype) for name, dtype in COLUMNS.items()}
    empty = Transitions(**columns, provenance=replace(PROVENANCE, episodes=0))
    assert empty.n_episodes == 0
    assert empty.returns().shape == (0,)
    empty.save(path)
    with pytest.raises(InputError, match="it has no rows") as error:
        Transitions.load(path)
    assert str(path) in str(error.value)


def test_number_of_episodes_is_that_of_the_provenance():
    with pytest.raises(InputError, match="says 4 episodes and it holds 3"):
        validate(make_transitions(provenance=replace(PROVENANCE, episodes=4)))


# -- files -------------------------------------------------------------------------------------


def test_round_trip(path):
    loaded = Transitions.load(path)
    for name in COLUMNS:
        column = getattr(loaded, name)
        np.testing.assert_array_equal(column, HAND_WRITTEN[name])
        assert column.dtype == COLUMNS[name]
        assert not column.flags.writeable
    assert loaded.provenance == PROVENANCE
    assert loaded.content_hash == make_transitions().content_hash


def test_provenance_without_a_seed(tmp_path):
    provenance = replace(PROVENANCE, seed=None)
    make_transitions(provenance=provenance).save(tmp_path / "a.npz")
    assert Transitions.load(tmp_path / "a.npz").provenance == provenance


def test_same_rows_same_bytes(path, tmp_path):
    make_transitions().save(tmp_path / "again.npz")
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()
    make_transitions({"reward": {1: 0.5}}).save(tmp_path / "other.npz")
    assert path.read_bytes() != (tmp_path / "other.npz").read_bytes()


def test_save_makes_folders_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "c.npz"
    make_transitions().save(path)
    assert list(path.parent.iterdir()) == [path]


def test_save_refuses_to_overwrite(path):
    before = path.read_bytes()
    other = make_transitions({"action": {0: 2}})
    with pytest.raises(InputError, match="exists") as error:
        other.save(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == before
    other.save(path, overwrite=True)
    assert Transitions.load(path).action[0] == 2


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch, failure, overwrite):
    path = tmp_path / "data.npz"
    if overwrite:
        make_transitions().save(path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def write_half(file, **arrays):
        file.write(b"half")
        raise failure

    monkeypatch.setattr(transitions_module.np, "savez", write_half)
    expected = InputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as error:
        make_transitions().save(path, overwrite=overwrite)
    if expected is InputError:
        assert str(error.value) == f"{path} cannot be written: No space left on device"
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_place_that_cannot_be_written(path):
    with pytest.raises(InputError, match="cannot be written"):
        make_transitions().save(path / "below_a_file.npz")
    assert path.is_file()


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="there is no such file") as error:
        Transitions.load(tmp_path / "nowhere.npz")
    assert "nowhere.npz" in str(error.value)
    with pytest.raises(InputError, match="there is no such file"):
        Transitions.load(tmp_path)


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


def write_arrays(path, changes=(), without=()):
    """A file with other arrays than `save` would write."""
    arrays = {name: np.array(values, COLUMNS[name]) for name, values in HAND_WRITTEN.items()}
    fields = {**PROVENANCE.to_dict(), "content_hash": make_transitions().content_hash}
    arrays["provenance"] = np.array(json.dumps(fields))
    arrays |= dict(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if name not in without})


def test_what_write_arrays_writes_loads(tmp_path):
    path = tmp_path / "foreign.npz"
    write_arrays(path)
    assert len(Transitions.load(path)) == 6
    write_arrays(path, {"episode": np.array(HAND_WRITTEN["episode"], dtype=np.uint8)})
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
        (
            {"provenance": np.array(json.dumps({**PROVENANCE.to_dict(), "episodes": "3"}))},
            [],
            "episodes is '3', of the wrong type",
        ),
        (
            {"provenance": np.array(json.dumps({**PROVENANCE.to_dict(), "seed": True}))},
            [],
            "seed is True, of the wrong type",
        ),
    ],
)
def test_a_malformed_file_is_named(tmp_path, changes, without, message):
    path = tmp_path / "foreign.npz"
    write_arrays(path, changes, without)
    with pytest.raises(InputError, match=message) as error:
        Transitions.load(path)
    assert str(error.value).startswith(str(path))


def test_other_kinds_of_files_are_refused(tmp_path):
    array = tmp_path / "array.npy"
    np.save(array, np.zeros(6))
    text = tmp_path / "text.npz"
    text.write_text("episode,step\n0,0\n")
    empty = tmp_path / "empty.npz"
    empty.touch()
    archive = tmp_path / "archive.npz"
    with zipfile.ZipFile(archive, "w") as file:
        for name in [*COLUMNS, "provenance"]:
            file.writestr(name, "text")
    header = tmp_path / "header.npz"
    with zipfile.ZipFile(header, "w") as file:
        for name in [*COLUMNS, "provenance"]:
            file.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x02\x00{\n")
    for path in (array, text, empty, archive, header):
        with pytest.raises(InputError) as error:
            Transitions.load(path)
        assert str(error.value).startswith(str(path))


def test_a_damaged_file_is_refused(path):
    """Cut off or changed anywhere, it raises InputError or still holds the same rows."""
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"hand\.npz"):
            Transitions.load(path)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            loaded = Transitions.load(path)
        except InputError:
            refused += 1
        else:
            assert loaded.content_hash == make_transitions().content_hash
            assert loaded.provenance == PROVENANCE
    assert refused > 200


def test_the_file_is_readable_without_this_package(path):
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["action"], HAND_WRITTEN["action"])
        fields = json.loads(str(archive["provenance"]))
    assert fields["environment_id"] == "Test-v0"
    assert fields["content_hash"] == make_transitions().content_hash
