"""Tables made elsewhere, as CSV and Parquet."""

import numpy as np
import pandas as pd
import pytest

from sepsis_rl.data.collection import collect
from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.tables import read_table
from sepsis_rl.data.transitions import COLUMNS
from sepsis_rl.errors import InputError
from sepsis_rl.policies import clinician_policy

# Stay 17 ends in death, stay 4 in survival, stay 9 is cut off.
STAYS = {
    "stay": ["s17", "s17", "s4", "s4", "s4", "s9"],
    "cluster": [0, 1, 2, 0, 0, 1],
    "dose": [0, 1, 2, 1, 1, 0],
    "reward": [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    "cut_off": [0, 0, 0, 0, 0, 1],
}
NAMES = {"episode": "stay", "observation": "cluster", "action": "dose", "truncated": "cut_off"}
WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.fixture
def write(tmp_path):
    def write(changes=None, suffix="csv"):
        path = tmp_path / f"stays.{suffix}"
        frame = pd.DataFrame({**STAYS, **(changes or {})})
        WRITERS[suffix](frame, path)
        return path

    return write


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_follows_from_the_rows_is_derived(write, suffix):
    data = read_table(write(suffix=suffix), NAMES)
    expected = {
        "episode": [0, 0, 1, 1, 1],
        "step": [0, 1, 0, 1, 2],
        "observation": STAYS["cluster"][:5],
        "action": STAYS["dose"][:5],
        "reward": STAYS["reward"][:5],
        "next_observation": [1, 1, 0, 0, 0],
        "terminated": [False, True, False, False, True],
        "truncated": [False] * 5,
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(data, name), values, err_msg=name)
    assert data.provenance.source == f"stays.{suffix}"
    check_rules(data, 3, 3)


@pytest.mark.parametrize(
    ("changes", "cut_off"), [({}, False), ({"terminated": [0, 1, 0, 0, 1, 0]}, True)]
)
def test_without_a_word_on_their_ends_all_episodes_terminate(write, changes, cut_off):
    """What does not terminate is truncated."""
    names = {name: NAMES[name] for name in ("episode", "observation", "action")}
    data = read_table(write({"next_observation": [1, 0, 0, 0, 0, 0], **changes}), names)
    np.testing.assert_array_equal(data.terminated, [0, 1, 0, 0, 1, not cut_off])
    np.testing.assert_array_equal(data.truncated, [0, 0, 0, 0, 0, cut_off])


@pytest.mark.parametrize("following", [{}, {"next_observation": [1, None, 0, 0, None, None]}])
def test_what_the_last_decision_before_a_cut_led_to_is_not_made_up(write, following, capsys):
    """Stay s4 is cut off too: its last decision goes, and the one before leads to its state."""
    data = read_table(write({"cut_off": [0, 0, 0, 0, 1, 1], **following}), NAMES)
    assert data.observation.tolist() == [0, 1, 2, 0]
    assert data.next_observation.tolist() == [1, 1, 0, 0]
    assert data.terminated.tolist() == [False, True, False, False]
    assert data.truncated.tolist() == [False, False, False, True]
    check_rules(data, 3, 3)
    assert "without a next_observation: 2." in capsys.readouterr().err


def test_a_next_observation_that_is_there_is_used(write):
    """The last one of an episode may be missing."""
    data = read_table(write({"next_observation": [1, np.nan, 0, 0, 2, 0]}), NAMES)
    np.testing.assert_array_equal(data.next_observation, [1, 1, 0, 0, 2, 0])


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_data_set_survives_the_way_through_a_table(tmp_path, suffix, mdp):
    data = collect(mdp, clinician_policy(mdp), episodes=50, seed=3)
    path = tmp_path / f"data.{suffix}"
    WRITERS[suffix](pd.DataFrame({name: getattr(data, name) for name in COLUMNS}), path)
    assert read_table(path).content_hash == data.content_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": [0, 1, 2, 0.5, 0, 1]}, "row 3: column cluster is a whole number, not 0.5"),
        (
            {"cluster": [0, 1, None, 0, None, 1]},
            "row 2, 4: column cluster is a whole number, not an empty",
        ),
        ({"dose": [0, 1, 2, "high", 1, 0]}, "row 3: column dose is a whole number, not high"),
        ({"dose": [0, 1, 2, 1e300, 1, 0]}, "row 3: column dose is a whole number"),
        ({"dose": [0, 1, 2, np.inf, 1, 0]}, "row 3: column dose is a whole number"),
        ({"stay": ["a", None, "b", "b", "b", "c"]}, "row 1: column stay names the row's episode"),
        ({"stay": ["a", "b", "b", "a", "a", "c"]}, "row 3: rows stand in the order"),
        ({"cut_off": [0, 0, 0, 0, 0, 2]}, "row 5: column cut_off is true or false"),
        ({"reward": [0, 0, 0, 0, "alive", 0]}, "row 4: reward is a finite number"),
        ({"reward": [1e-50, 0, 0, 0, 1 - 1e-9, 0]}, "row 0, 4: column reward is 0 or 1, and not"),
        ({"step": [0, 1, 0, 2, 3, 0]}, "row 3, 4: step counts 0, 1, 2"),
        ({"next_observation": [None, 1, 0, 0, 0, 1]}, "row 0: column next_observation is a whole"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_wrong_value_is_named(write, changes, message, suffix):
    if suffix == "parquet":  # which has a type for each column
        changes = {
            name: [None if value is None else str(value) for value in values]
            if any(isinstance(value, str) for value in values)
            else values
            for name, values in changes.items()
        }
    path = write(changes, suffix)
    with pytest.raises(InputError) as refused:
        check_rules(read_table(path, NAMES), 3, 3, where=path)
    assert str(refused.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("one", "other"), [("1.1", "1.10"), ("7", "007"), ("0e12", "0e34"), ("1e5", "100000")]
)
def test_names_of_episodes_are_text(tmp_path, one, other):
    path = tmp_path / "stays.csv"
    path.write_text(f"episode,observation,action,reward\n{one},0,0,0\n{other},1,1,1\n")
    assert read_table(path).n_episodes == 2


def test_columns_of_parquet_with_numbers_for_names(tmp_path):
    path = tmp_path / "table.parquet"
    pd.DataFrame([[5, 0, 1, 1.0]]).to_parquet(path)
    names = {"episode": "0", "observation": "1", "action": "2", "reward": "3"}
    assert read_table(path, names).action.tolist() == [1]
    pd.DataFrame(index=[0]).to_parquet(path)
    with pytest.raises(InputError, match="it has none"):
        read_table(path)


def test_a_column_that_pandas_keeps_as_an_index_is_a_column(write):
    path = write({"next_observation": [1, 2, 0, 0, 2, 0]}, "parquet")
    pd.read_parquet(path).set_index("next_observation").to_parquet(path)
    assert read_table(path, NAMES).next_observation.tolist() == [1, 2, 0, 0, 2, 0]
    frame = pd.read_parquet(path)
    frame.assign(next_observation=0).to_parquet(path)
    with pytest.raises(InputError, match="two columns are named next_observation"):
        read_table(path, NAMES)


def test_a_list_names_no_episode(write):
    path = write({"stay": [[0], [0], [0], [1], [1], [2]]}, "parquet")
    with pytest.raises(InputError, match="column stay is a number or a name"):
        read_table(path, NAMES)


@pytest.mark.parametrize("column", ["cluster", "dose", "next_observation", "cut_off"])
def test_a_time_is_no_number(write, column):
    times = pd.to_datetime([0, 1, 2, 0, 0, 1])
    path = write({column: times}, "parquet")
    with pytest.raises(InputError, match=f"row 0, 1, 2, .*: column {column} is"):
        read_table(path, NAMES)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "there is no column episode for episode; it has stay, cluster, dose"),
        ({**NAMES, "reward": "died"}, "there is no column died for reward"),
        ({**NAMES, "step": "bloc"}, "there is no column bloc for step"),
        ({**NAMES, "state": "cluster"}, "there is no column state; accepted: episode, step, "),
        ({**NAMES, "action": "cluster"}, "observation and action are both the column cluster"),
    ],
)
def test_columns_that_cannot_be_used_are_named(write, columns, message):
    with pytest.raises(InputError) as refused:
        read_table(write(), columns)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("episode,action,action,reward", ["0,1,2,1.0"], "two columns are named action"),
        ("episode,observation,action,reward", ["0,0,1,2,1.0"], "more fields than its header has"),
        # Whatever the first field is, such as numbers that count the rows.
        ("episode,observation,action,reward", ["1,7,0,1,0", "2,7,0,1,0"], "more fields than"),
        ("episode,observation,action,reward", ["1,7,0,1,0", "5,7,0,1,0"], "more fields than"),
    ],
)
def test_columns_that_pandas_would_take_for_others_are_refused(tmp_path, header, rows, message):
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *rows, ""]))
    with pytest.raises(InputError, match=message):
        read_table(path)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"stay,cluster\n", b"PAR1"])
def test_what_is_no_table_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"stays.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_table(path, NAMES)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
