"""Where checkpoints are, and what is loaded into what."""

from pathlib import Path

import pytest

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.errors import InputError
from sepsis_rl.runs.checkpoints import (
    SafeCheckpointIO,
    compare_with,
    find_last,
    run_folder,
)
from sepsis_rl.runs.untrusted import read_checkpoint

SMALL = {"embedding_dim": 8, "hidden_dims": [16]}
ALPHAS = [0.1, 1.0]


def last(runs, config):
    return runs / "runs" / config / "version_0" / "checkpoints" / "last.ckpt"


# -- places ------------------------------------------------------------------------------------


def place(folder, version, name="last.ckpt"):
    path = folder / "cql" / version / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_the_last_is_of_the_largest_number(tmp_path):
    place(tmp_path, "version_2")
    newest = place(tmp_path, "version_10")
    place(tmp_path, "version_9")
    assert find_last(tmp_path, "cql") == newest
    assert find_last(str(tmp_path), "cql") == newest


def test_a_run_without_a_checkpoint_is_passed_over(tmp_path):
    older = place(tmp_path, "version_0")
    place(tmp_path, "version_1", "step=5.ckpt")
    (tmp_path / "cql" / "version_2").mkdir()
    place(tmp_path, "version_old")
    place(tmp_path, "version_3.bak")
    assert find_last(tmp_path, "cql") == older


def test_no_run_is_an_error(tmp_path):
    place(tmp_path, "version_0")
    for name in ("bc", "c*"):
        with pytest.raises(InputError, match=r"last.*version_"):
            find_last(tmp_path, name)
    with pytest.raises(InputError, match="last"):
        find_last(tmp_path / "nowhere", "cql")


def test_the_run_of_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/cql/version_0")
    assert run_folder(run / "checkpoints" / "last.ckpt") == run.resolve()
    assert run_folder("elsewhere/one.ckpt") == Path("elsewhere").resolve()


def test_a_folder_is_never_removed(tmp_path):
    victim = tmp_path / "victim.ckpt"
    victim.mkdir()
    (victim / "file").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "old.ckpt").touch()
    for place in (victim, f"local://{victim}", tmp_path / "notes.txt", tmp_path / "none.ckpt"):
        SafeCheckpointIO().remove_checkpoint(place)
    assert (victim / "file").exists()
    assert (tmp_path / "notes.txt").exists()
    SafeCheckpointIO().remove_checkpoint(tmp_path / "old.ckpt")
    assert not (tmp_path / "old.ckpt").exists()


# -- comparing ---------------------------------------------------------------------------------


def test_what_differs_is_named(finished_runs):
    path = last(finished_runs, "cql")
    checkpoint = read_checkpoint(path)

    def differences(**changed):
        module = CQL(**{**checkpoint["hyper_parameters"], **changed})
        return sorted(compare_with(checkpoint, module, (716, 25), path))

    # A tuple is the list that a YAML file has.
    assert differences() == differences(hidden_dims=(16,), value_range=[0.0, 1.0]) == []
    alpha, rate = differences(alpha=2.0, learning_rate=0.1)
    assert all(text in alpha for text in ("model.alpha", "0.003", "2.0"))
    assert all(text in rate for text in ("model.learning_rate", "0.001", "0.1"))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (lambda: DQN(**SMALL), ["CQL", "DQN"]),
        (lambda: BC(**SMALL), ["CQL", "BC"]),
        (lambda: CQL(alpha=ALPHAS, **SMALL), ["1 member", "2"]),
        (lambda: CQL(embedding_dim=8, hidden_dims=[16, 16]), ["hidden_dims", "[16]", "[16, 16]"]),
        (lambda: CQL(alpha=ALPHAS, share="1/2", **SMALL), ["share=None", "1/2"]),
        (lambda: CQL(embedding_dim=9, hidden_dims=[16]), ["embedding_dim", "8", "9"]),
    ],
)
def test_what_does_not_fit_is_refused(finished_runs, module, said):
    path = last(finished_runs, "cql")
    with pytest.raises(InputError) as refused:
        compare_with(read_checkpoint(path), module(), (716, 25), path)
    for text in (str(path), *said):
        assert text in str(refused.value)
