"""How lists of settings become members."""

import pytest

from sepsis_rl.algorithms.members import expand_members
from sepsis_rl.errors import InputError


@pytest.mark.parametrize(
    ("scalars", "names"),
    [
        ({"alpha": 0.5, "seed": 42}, [""]),  # a single run is a population of one
        ({"alpha": [0.5], "seed": 1}, ["alpha=0.5"]),
        (
            {"alpha": [0.1, 0.5], "gamma": 0.99, "seed": [1, 2]},
            ["alpha=0.1,seed=1", "alpha=0.1,seed=2", "alpha=0.5,seed=1", "alpha=0.5,seed=2"],
        ),
    ],
)
def test_names_say_what_was_listed(scalars, names):
    assert list(expand_members(scalars).names) == names


def test_lists_span_their_product_and_the_last_varies_fastest():
    members = expand_members({"alpha": [0.0, 0.5], "gamma": 0.99, "seed": [1, 2, 3]})
    assert len(members) == 6
    assert members.settings[1] == {"alpha": 0.0, "gamma": 0.99, "seed": 2}
    assert members.values("alpha") == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    assert members.values("seed") == [1, 2, 3, 1, 2, 3]
    assert members.values("gamma") == [0.99] * 6


@pytest.mark.parametrize(
    ("scalar", "values"),
    [
        ("seed", [20260101, 20260102]),
        ("seed", [2**40, 2**40 + 1]),
        ("learning_rate", [3e-4, 3.0000001e-4]),
    ],
)
def test_members_never_share_a_name(scalar, values):
    """Names are the folders and the prefixes of the members' curves."""
    names = expand_members({scalar: values}).names
    assert len(set(names)) == len(values)
    assert [type(values[0])(name.removeprefix(f"{scalar}=")) for name in names] == values


def test_shares_make_up_the_whole():
    scalars = {"alpha": [0.1, 0.5], "seed": [1, 2, 3]}
    whole = expand_members(scalars)
    shares = [expand_members(scalars, f"{k}/4") for k in (1, 2, 3, 4)]
    assert [len(share) for share in shares] == [2, 2, 1, 1]
    assert shares[1].names == ("alpha=0.1,seed=2", "alpha=0.5,seed=3")
    assert sorted(name for share in shares for name in share.names) == sorted(whole.names)
    for share in shares:
        for name, settings in zip(share.names, share.settings, strict=True):
            assert settings == whole.settings[whole.names.index(name)]


@pytest.mark.parametrize("share", ["0/2", "3/2", "1/7", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_a_share_that_does_not_exist_is_refused(share):
    with pytest.raises(InputError, match=r"model\.share=.* such as 1/3, .*number of members, 6"):
        expand_members({"alpha": [0.1, 0.5], "seed": [1, 2, 3]}, share)


@pytest.mark.parametrize("values", [[], [1, 1], [1, 2, 1], [1, 1.0]])
def test_empty_lists_and_values_given_twice_are_refused(values):
    with pytest.raises(InputError, match=r"model\.seed="):
        expand_members({"alpha": 0.5, "seed": values})
