"""Damaged and wrong data: refused with a message, or a valid data set after all."""

import itertools
import json
import math
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.transitions import COLUMNS, Provenance, Transitions
from sepsis_rl.errors import InputError

N_STATES, N_ACTIONS = 6, 3
PROVENANCE = Provenance("Test-v0", "1", "by hand", 7, 8, "made up")
FORMATS = ("npz", "csv", "parquet")


def make_columns(seed=0, episodes=8):
    rng = np.random.default_rng(seed)
    rows = []
    for episode in range(episodes):
        length = int(rng.integers(1, 6))
        path = rng.integers(N_STATES, size=length + 1)
        for step in range(length):
            last = step == length - 1
            rows.append(
                (episode, step, path[step], rng.integers(N_ACTIONS),
                 float(last and episode % 2 and episode % 3 > 0), path[step + 1],
                 last and episode % 3 > 0, last and episode % 3 == 0)
            )  # fmt: skip
    return {
        name: np.array(values, dtype=dtype)
        for (name, dtype), values in zip(COLUMNS.items(), zip(*rows, strict=True), strict=True)
    }


def write(columns, path):
    """Whatever the columns are, in a file whose own checks hold."""
    if path.suffix == ".npz":
        try:
            fields = {"content_hash": Transitions(**columns, provenance=PROVENANCE).content_hash}
        except (InputError, TypeError):
            fields = {"content_hash": "none"}
        ids = columns.get("episode", np.zeros(0))
        episodes = int((ids[1:] != ids[:-1]).sum()) + 1
        fields |= {**PROVENANCE.to_dict(), "episodes": episodes}
        np.savez(path, **columns, provenance=np.array(json.dumps(fields)))
    elif path.suffix == ".csv":
        pd.DataFrame(columns).to_csv(path, index=False)
    else:
        pd.DataFrame(columns).to_parquet(path)


def read(path):
    """As a run reads it: all rules, apart from those of the simulator's tables."""
    data = OfflineDataModule(path=str(path), n_states=N_STATES, n_actions=N_ACTIONS)
    data.prepare_data()
    parts = (data.train, data.held_out, data.report)
    return [{name: getattr(part, name) for name in COLUMNS} for part in parts]


def keeps_the_rules(columns):
    """The rules, spelled out row by row."""
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    for _, _, observation, action, reward, following, *_ in rows:
        if not (0 <= observation < N_STATES and 0 <= following < N_STATES):
            return False
        if not (0 <= action < N_ACTIONS and math.isfinite(reward)):
            return False
    for (e0, s0, *_, next0, term0, trunc0), (e1, s1, o1, *_) in itertools.pairwise(rows):
        if e1 < e0:
            return False
        if e1 == e0 and (s1 != s0 + 1 or o1 != next0 or term0 or trunc0):
            return False
        if e1 > e0 and (s1 != 0 or not (term0 or trunc0)):
            return False
    return bool(rows) and rows[0][1] == 0 and (rows[-1][-2] or rows[-1][-1])


VALUES = {
    "episode": st.integers(0, 9),
    "step": st.integers(-1, 5),
    "observation": st.integers(-1, N_STATES),
    "action": st.integers(-1, N_ACTIONS),
    "reward": st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf]),
    "next_observation": st.integers(-1, N_STATES),
    "terminated": st.booleans(),
    "truncated": st.booleans(),
}


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 5),
    changes=st.lists(
        st.sampled_from(list(COLUMNS)).flatmap(
            lambda name: st.tuples(st.just(name), st.integers(0, 99), VALUES[name])
        ),
        max_size=3,
    ),
)
def test_the_rules_are_those_spelled_out(seed, changes):
    columns = make_columns(seed)
    for name, row, value in changes:
        columns[name][row % len(columns[name])] = value
    n_episodes = 1 + int((columns["episode"][1:] != columns["episode"][:-1]).sum())
    provenance = Provenance(**{**PROVENANCE.to_dict(), "episodes": n_episodes})
    data = Transitions(**columns, provenance=provenance)
    if keeps_the_rules(columns):
        check_rules(data, N_STATES, N_ACTIONS)
    else:
        with pytest.raises(InputError, match=r"^here: row \d+.*: "):
            check_rules(data, N_STATES, N_ACTIONS, where="here")


# -- files ---------------------------------------------------------------------------------------


def cut(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def flip_bits(content, rng, most):
    content = bytearray(content)
    for _ in range(rng.integers(1, most)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(content)


def flip(path, rng):
    path.write_bytes(flip_bits(path.read_bytes(), rng, 9))


def overwrite(path, rng):
    content = bytearray(path.read_bytes())
    at = rng.integers(len(content))
    content[at : at + 20] = rng.bytes(20)
    path.write_bytes(bytes(content))


def flip_inside(path, rng):
    """Damage that the archive's own checksums do not tell."""
    if path.suffix != ".npz":
        return flip(path, rng)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    damaged = str(rng.choice(list(members)))
    members[damaged] = flip_bits(members[damaged], rng, 4)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def change(edit):
    def mutate(path, rng):
        write(edit(make_columns(int(rng.integers(5))), rng), path)

    return mutate


def rows(choose):
    """`choose` picks the rows that a file has, of so many."""

    def edit(columns, rng):
        chosen = choose(len(columns["step"]), rng)
        return {name: column[chosen] for name, column in columns.items()}

    return change(edit)


def never_end(columns, rng):
    return {
        **columns,
        "terminated": columns["terminated"] & False,
        "truncated": columns["truncated"] & False,
    }


def wrong_value(columns, rng):
    name = str(rng.choice(list(COLUMNS)))
    values = columns[name].astype(np.float64)
    values[rng.integers(len(values))] = rng.choice([-1, 0.5, 99, 1e300, np.nan, np.inf, 2**62])
    return {**columns, name: values}


def wrong_type(columns, rng):
    name = str(rng.choice(list(COLUMNS)))
    n = len(columns[name])
    kinds = (
        np.array(["x"] * n),
        np.array([None] * n, dtype=object),
        np.array(["2020-01-01"] * n, dtype="datetime64[ns]"),
        np.full(n, 1.5),
    )
    return {**columns, name: kinds[rng.integers(len(kinds))]}


def no_column(columns, rng):
    name = str(rng.choice(list(COLUMNS)))
    return {key: column for key, column in columns.items() if key != name}


MUTATIONS = {
    "cut": cut,
    "flip": flip,
    "overwrite": overwrite,
    "flip inside": flip_inside,
    "repeat": rows(lambda n, rng: np.sort(np.append(np.arange(n), rng.integers(n)))),
    "drop": rows(lambda n, rng: rng.random(n) > 0.1),
    "shuffle": rows(lambda n, rng: rng.permutation(n)),
    "be empty": rows(lambda n, rng: slice(0)),
    **{edit.__name__: change(edit) for edit in (never_end, wrong_value, wrong_type, no_column)},
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("number", [6, pytest.param(56, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # of readers that are handed garbage
def test_mutated_files(tmp_path, suffix, number, count):
    """Twelve mutations of 56 files in three formats: 2,016."""
    path = tmp_path / f"data.{suffix}"
    messages, loaded = [], 0
    for index, (name, mutate) in itertools.product(range(number), MUTATIONS.items()):
        rng = np.random.default_rng([index, *name.encode()])
        write(make_columns(index % 5), path)
        original = read(path)
        mutate(path, rng)
        try:
            found = read(path)
        except InputError as error:
            messages.append(str(error))
            continue
        loaded += 1
        for part in found:
            assert keeps_the_rules(part), (name, index)
        if suffix == "npz" and name in ("cut", "flip", "overwrite", "flip inside"):  # it has a hash
            for part, before in zip(found, original, strict=True):
                for column in COLUMNS:
                    np.testing.assert_array_equal(part[column], before[column])
    assert len(messages) > 0.5 * number * len(MUTATIONS)
    for message in messages:
        assert str(path) in message
        assert len(message) < 1000
    tried = number * len(MUTATIONS)
    count(f"damaged {suffix} files: {tried}, {len(messages)} refused, {loaded} valid data sets")
