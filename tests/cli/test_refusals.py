"""Input that fit, validate, test and predict refuse, in one message."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import assert_refused, files

from sepsis_rl.cli.main import OTHER_COMMANDS, TRAINING_COMMANDS

CONFIGS = Path(__file__).parents[2] / "configs"

FIT_REFUSES = {
    "unknown key": (["--data.epsiodes=3"], ["epsiodes", "data.episodes"]),
    "unknown key of the model": (["--model.alhpa=3"], ["alhpa", "model.alpha"]),
    "unknown key of the trainer": (["--trainer.max_step=3"], ["max_step", "trainer.max_steps"]),
    "unknown group": (["--modle.alpha=3"], ["modle"]),
    "abbreviation": (["--data.epi=3"], ["data.epi"]),
    "key of another algorithm": (["--model.sampled=true"], ["sampled"]),
    "stray word": (["now"], ["now"]),
    "text for an integer": (["--data.episodes=many"], ["data.episodes", "many", "int"]),
    "text for a number": (["--model.alpha=high"], ["alpha", "high", "float"]),
    "number for an integer": (["--trainer.max_steps=1.5"], ["max_steps", "1.5", "int"]),
    "not one of several": (["--evaluation.strategy=none"], ["strategy", "terminate"]),
    "text for a switch": (["--model.double_q=perhaps"], ["double_q", "perhaps", "bool"]),
    "unknown policy": (["--data.policy=nurse"], ["data.policy", "nurse", "clinician"]),
    "unknown class": (["--model=SAC"], ["SAC"]),
    "unknown command": (None, ["train", *TRAINING_COMMANDS, *OTHER_COMMANDS]),
    "second config missing": (["--config=nowhere.yaml"], ["nowhere.yaml"]),
    "alpha": (["--model.alpha=-0.1"], ["alpha", "-0.1", "at least 0"]),
    "alpha of a member": (["--model.alpha=[0.5,-1]"], ["alpha", "-1", "at least 0"]),
    "alpha not a number": (["--model.alpha=.nan"], ["alpha", "nan"]),
    "alpha infinite": (["--model.alpha=.inf"], ["alpha", "inf"]),
    "members twice": (["--model.alpha=[1.0,1.0]"], ["alpha"]),
    "no members": (["--model.alpha=[]"], ["alpha"]),
    "tau 0": (["--model.tau=0"], ["tau", "(0, 1]"]),
    "tau above 1": (["--model.tau=1.01"], ["tau", "1.01", "(0, 1]"]),
    "tau of a member": (["--model.tau=[0.1,2]"], ["tau", "2", "(0, 1]"]),
    "gamma above 1": (["--model.gamma=1.1"], ["gamma", "1.1"]),
    "gamma below 0": (["--model.gamma=-0.1"], ["gamma", "-0.1"]),
    "learning rate 0": (["--model.learning_rate=0"], ["learning_rate"]),
    "learning rate not a number": (["--model.learning_rate=.nan"], ["learning_rate", "nan"]),
    "seed": (["--model.seed=-1"], ["seed", "-1"]),
    "no layers": (["--model.hidden_dims=[]"], ["hidden_dims"]),
    "a layer of no width": (["--model.hidden_dims=[16,0]"], ["hidden_dims", "0"]),
    "embedding of no width": (["--model.embedding_dim=0"], ["embedding_dim", "0"]),
    "negative mask": (["--model.min_action_count=-1"], ["min_action_count", "-1"]),
    "no episodes": (["--data.episodes=0"], ["data.episodes", "0"]),
    "no batch": (["--data.batch_size=0"], ["data.batch_size", "0"]),
    "all held out": (["--data.held_out_share=1"], ["data.held_out_share", "1"]),
    "no patients": (["--evaluation.patients=0"], ["evaluation.patients", "0"]),
    "no report episodes": (["--data.report_episodes=0"], ["data.report_episodes", "0"]),
    "report share": (["--data.report_share=1"], ["data.report_share", "1"]),
    "held-out episodes twice": (["--data.report_seed=42"], ["data.report_seed", "must differ"]),
    "softening": (["--ope.epsilon=2"], ["ope.epsilon", "2"]),
    "clip": (["--ope.clip=0"], ["ope.clip", "0"]),
    "no resamples": (["--ope.resamples=-1"], ["ope.resamples", "-1"]),
    "typo in ope": (["--ope.epsylon=0.1"], ["ope.epsylon", "ope.epsilon"]),
    "no devices": (["--trainer.devices=0"], ["trainer.devices", "0"]),
    "unknown accelerator": (["--trainer.accelerator=abacus"], ["accelerator", "abacus"]),
    "unknown strategy": (["--trainer.strategy=chess"], ["strategy", "chess"]),
    "unknown precision": (["--trainer.precision=9"], ["precision", "9"]),
    "missing data": (["--data.path=nowhere.npz"], ["nowhere.npz", "no such file"]),
    "missing checkpoint": (["--ckpt_path=nowhere.ckpt"], ["nowhere.ckpt", "no such file"]),
    "nothing to go on from": (["--ckpt_path=last"], ["last", "runs/cql"]),
}


@pytest.mark.parametrize(("words", "said"), FIT_REFUSES.values(), ids=FIT_REFUSES)
def test_what_fit_refuses(lightning, tmp_path, words, said):
    """One message, and nothing is left behind."""
    ran = lightning.main("train") if words is None else lightning("fit", "cql", *words)
    assert_refused(ran, *said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(lightning, tmp_path):
    ran = lightning("fit", "cql", "--trainer.accelerator=gpu")
    assert_refused(ran, "trainer.accelerator", "gpu", "cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_more_gpus_than_there_are_are_refused(lightning, tmp_path):
    devices = torch.cuda.device_count() + 1
    ran = lightning("fit", "cql", "--trainer.accelerator=gpu", f"--trainer.devices={devices}")
    assert_refused(ran, "trainer.devices", str(devices), "cuda")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_told(lightning):
    """More than the address space has."""
    ran = lightning("fit", "bc", "--model.hidden_dims=[100000000000000]")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    error = ran.err.splitlines()[-1]
    assert error.startswith("lightning: error: there is not enough memory")
    assert "allocate" in error


def test_a_missing_config_is_refused(lightning, tmp_path):
    assert_refused(lightning.main("fit", "--config=nowhere.yaml"), "nowhere.yaml")
    assert_refused(lightning.main("fit"), "model", "config")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["model: [", "- a\n- list\n", "just a word", "\x00\x01", "model: ${...nowhere}\n"]
)
def test_a_malformed_config_is_refused(lightning, tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert_refused(lightning.main("fit", f"--config={path}"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_config_that_points_nowhere_is_refused(lightning, tmp_path):
    text = (CONFIGS / "cql.yaml").read_text()
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace("${...seed_everything}", "${...seed_evrything}"))
    assert_refused(lightning.main("fit", f"--config={path}", "--trainer.max_steps=1"), "evrything")
    assert list(tmp_path.iterdir()) == [path]


def truncated(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "spoil",
    {
        "empty": lambda data: b"",
        "text": lambda data: b"episode,step\n0,0\n",
        "truncated": truncated,
        "one byte changed": lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_malformed_data_file_is_refused(runs, lightning, tmp_path, spoil, command):
    assert lightning.main("collect", "--episodes=20", "--output=data.npz").code == 0
    path = tmp_path / "data.npz"
    path.write_bytes(spoil[1](path.read_bytes()))
    before = files(tmp_path)
    options = ["--data.path=data.npz", *(["--ckpt_path=last"] if command == "validate" else [])]
    assert_refused(lightning(command, "cql", *options), "data.npz")
    assert files(tmp_path) == before


def test_a_data_file_without_rows_is_refused(lightning, tmp_path):
    assert lightning.main("collect", "--episodes=20", "--output=data.npz").code == 0
    with np.load("data.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    rows = {name: array[:0] if array.ndim else array for name, array in arrays.items()}
    np.savez("data.npz", **rows)
    before = files(tmp_path)
    assert_refused(lightning("fit", "cql", "--data.path=data.npz"), "data.npz")
    assert files(tmp_path) == before


def test_a_damaged_cache_is_refused(lightning, tmp_path):
    cache = tmp_path / "cache"
    options = [f"--data.cache_dir={cache}", "--trainer.max_steps=1", "--data.episodes=20"]
    assert lightning("fit", "bc", *options).code == 0
    (path,) = cache.glob("*_20-episodes_*")
    path.write_bytes(truncated(path.read_bytes()))
    before = files(tmp_path)
    assert_refused(lightning("fit", "bc", *options), path.name)
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_scoring_needs_a_checkpoint(lightning, tmp_path, command):
    assert_refused(lightning(command, "cql"), "--ckpt_path")
    assert_refused(lightning(command, "cql", "--ckpt_path=last"), "last", "runs/cql")
    assert_refused(lightning(command, "cql", "--ckpt_path=no.ckpt"), "no.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["fit", "validate", "predict"])
def test_a_checkpoint_that_does_not_fit_is_refused(runs, lightning, tmp_path, command):
    before = files(tmp_path)
    bc = runs / "bc" / "version_0" / "checkpoints" / "last.ckpt"
    sweep = runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt"
    cql = runs / "cql" / "version_0" / "checkpoints" / "last.ckpt"
    for options, said in (
        ([f"--ckpt_path={bc}"], ["BC", "CQL"]),
        ([f"--ckpt_path={sweep}"], ["4", "1"]),
        ([f"--ckpt_path={cql}", "--model.hidden_dims=[32]"], ["hidden_dims", "16", "32"]),
        ([f"--ckpt_path={cql}", "--model.embedding_dim=4"], ["embedding_dim", "8", "4"]),
    ):
        assert_refused(lightning(command, "cql", *options), *said)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: held.update(loops={}),
        lambda held: held.update(OfflineDataModule={}),
        lambda held: held["callbacks"]["PolicyEvaluation"].update(history=None),
        lambda held: held["callbacks"].update(RecordedSettings={}),
        lambda held: held["hyper_parameters"].pop("embedding_dim"),
        lambda held: held.update({"pytorch-lightning_version": "x"}),
    ],
)
def test_entries_that_do_not_belong_together_are_told(lightning, runs, spoil):
    held = torch.load(runs / "cql/version_0/checkpoints/last.ckpt", weights_only=True)
    spoil(held)
    torch.save(held, "odd.ckpt")
    ran = lightning("fit", "cql", "--ckpt_path=odd.ckpt", "--trainer.max_steps=30")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert ran.err.splitlines()[-1].startswith("lightning: error: ")
    assert "checkpoint" in ran.err.splitlines()[-1]


def test_a_damaged_table_of_metrics_is_left_alone(lightning, runs):
    path = runs / "cql/version_0/metrics.json"
    path.write_text("{")
    assert lightning("test", "cql", "--ckpt_path=last").code == 0
    assert path.read_text() == "{"
    assert "test" in json.loads(path.with_name("metrics-1.json").read_text())


def test_weights_alone_are_scored_but_do_not_go_on(lightning):
    options = ["--checkpoint.save_weights_only=true", "--trainer.max_steps=2"]
    assert lightning("fit", "cql", *options).code == 0
    assert lightning("validate", "cql", "--ckpt_path=last").code == 0
    assert_refused(lightning("fit", "cql", "--ckpt_path=last"), "last.ckpt", "weights alone")
    ran = lightning.main("report", "runs/cql/version_0", "--output=report")
    assert ran.code == 2
    assert "weights alone" in ran.err
    path = Path("runs/cql/version_0/checkpoints/last.ckpt")
    words = [f"--ckpt_path={path}", "--member=0", "--output=one.ckpt"]
    assert lightning.main("export", *words).code == 0
    assert lightning("test", "cql", "--ckpt_path=one.ckpt").code == 0


class Payload:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def planted(path):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["payload"] = Payload()
    torch.save(checkpoint, path)


def torn(path):
    path.write_bytes(path.read_bytes()[:-1000])


def foreign(path):
    torch.save({"state_dict": {}, "hyper_parameters": {"_instantiator": "x"}}, path)


def text(path):
    path.write_text("hello\n")


def empty(path):
    path.write_bytes(b"")


def a_list(path):
    torch.save([1, 2, 3], path)


@pytest.mark.parametrize(
    ("command", "spoil"),
    [
        *((command, planted) for command in ("fit", "validate", "test", "predict", "export")),
        *(("fit", spoil) for spoil in (torn, foreign, text, empty, a_list)),
        ("export", torn),
    ],
)
def test_a_bad_checkpoint_is_refused_and_never_run(runs, lightning, tmp_path, spoil, command):
    path = runs / "cql" / "version_0" / "checkpoints" / "last.ckpt"
    spoil(path)
    before = files(tmp_path)
    if command == "export":
        ran = lightning.main("export", f"--ckpt_path={path}", "--member=0", "--output=x.ckpt")
    else:
        ran = lightning(command, "cql", "--ckpt_path=last")
    assert_refused(ran, "last.ckpt")
    assert not Path("ran").exists()
    assert files(tmp_path) == before


def test_the_payload_would_run(tmp_path, monkeypatch):
    """The test above can fail."""
    monkeypatch.chdir(tmp_path)
    torch.save({"hyper_parameters": {}}, "x.ckpt")
    planted(Path("x.ckpt"))
    torch.load("x.ckpt", weights_only=False)
    assert Path("ran").exists()


def test_inadmissible_actions_that_raise_are_one_message(runs, lightning):
    options = ["--ckpt_path=last", "--evaluation.strategy=raise_exception"]
    assert_refused(lightning("validate", "cql", *options), "inadmissible")
