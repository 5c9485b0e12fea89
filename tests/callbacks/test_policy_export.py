"""The table of a policy in a file."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from sepsis_rl.algorithms import CQL
from sepsis_rl.callbacks import PolicyExport
from sepsis_rl.errors import InputError


@pytest.fixture
def module():
    """Two members of a network on the chain's states."""
    module = CQL(alpha=[0.0, 1.0], embedding_dim=4, hidden_dims=[4])
    module.build(5, 2)
    return module


@pytest.fixture
def trainer(chain_mdp):
    counts = np.array([[3, 0], [1, 2], [0, 0], [0, 0], [0, 0]])
    return SimpleNamespace(datamodule=SimpleNamespace(mdp=chain_mdp, pair_counts=counts))


def export(trainer, module, **options):
    callback = PolicyExport(**options)
    callback.on_predict_start(trainer, module)
    callback.on_predict_end(trainer, module)


def rows(path):
    lines = path.read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_existing_files_are_kept(trainer, module, tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("mine")
    for name in ("mine-1.csv", "mine-2.csv"):
        export(trainer, module, output=str(path))
        assert len(rows(tmp_path / name)) == 5
        assert name in capsys.readouterr().out
    assert path.read_text() == "mine"


@pytest.mark.parametrize("member", [-1, 2])
def test_a_member_that_is_not_there_is_refused_before_anything_is_computed(
    trainer, module, tmp_path, member
):
    with pytest.raises(InputError, match=rf"{member}.*0 to 1"):
        PolicyExport(member=member).on_predict_start(trainer, module)
