"""The table of a policy in a file."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
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
    data = SimpleNamespace(mdp=chain_mdp, pair_counts=counts, content_hash="0084da")
    return SimpleNamespace(datamodule=data, ckpt_path="last.ckpt")


def export(trainer, module, **options):
    callback = PolicyExport(**options)
    callback.on_predict_start(trainer, module)
    callback.on_predict_end(trainer, module)


def rows(path):
    return pd.read_csv(path, dtype=str).to_dict("records")


def test_the_file_says_what_it_is_not_for(trainer, module, tmp_path):
    export(trainer, module, output=str(tmp_path / "policy.csv"), member=1)
    origin = json.loads((tmp_path / "policy.json").read_text())
    assert "Not for clinical use" in origin["note"]
    assert (origin["algorithm"], origin["member"], origin["settings"]["alpha"]) == ("CQL", 1, 1.0)
    assert (origin["checkpoint"], origin["trained_on"]) == ("last.ckpt", "0084da")


def test_existing_files_are_kept(trainer, module, tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("mine")
    (tmp_path / "mine-1.json").write_text("mine, too")
    for name in ("mine-2.csv", "mine-3.csv"):
        export(trainer, module, output=str(path))
        assert len(rows(tmp_path / name)) == 5
        assert name in capsys.readouterr().out
    assert path.read_text() == "mine"
    assert (tmp_path / "mine-1.json").read_text() == "mine, too"
    with pytest.raises(InputError, match=r"mine\.json cannot be used"):
        export(trainer, module, output=str(tmp_path / "mine.json"))
    for output in ("", str(tmp_path), "/dev/null"):
        with pytest.raises(InputError, match="it is no file"):
            export(trainer, module, output=output)


@pytest.mark.parametrize("member", [-1, 2])
def test_a_member_that_is_not_there_is_refused_before_anything_is_computed(
    trainer, module, tmp_path, member
):
    with pytest.raises(InputError, match=rf"{member}.*0 to 1"):
        PolicyExport(member=member).on_predict_start(trainer, module)
