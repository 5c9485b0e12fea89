"""Input that fit, validate, test and predict refuse, in one message."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from run_folders import assert_refused, files

from sepsis_rl.cli.main import OTHER_COMMANDS, TRAINING_COMMANDS

CONFIGS = Path(__file__).parents[2] / "configs"

FIT_REFUSES = {
    "unknown key": (["--data.epsiodes=3"], ["epsiodes", "data.episodes"]),
    "unknown key of the model": (["--model.alhpa=3"], ["alhpa", "model.alpha"]),
    "unknown group": (["--modle.alpha=3"], ["modle"]),
    "abbreviation": (["--data.epi=3"], ["data.epi"]),
    "key of another algorithm": (["--model.sampled=true"], ["sampled"]),
    "stray word": (["now"], ["now"]),
    "text for an integer": (["--data.episodes=many"], ["data.episodes", "many", "int"]),
    "number for an integer": (["--trainer.max_steps=1.5"], ["max_steps", "1.5", "int"]),
    "not one of several": (["--evaluation.strategy=none"], ["strategy", "terminate"]),
    "text for a switch": (["--model.double_q=perhaps"], ["double_q", "perhaps", "bool"]),
    "unknown policy": (["--data.policy=nurse"], ["data.policy", "nurse", "clinician"]),
    "unknown class": (["--model=SAC"], ["SAC"]),
    "unknown command": (None, ["train", *TRAINING_COMMANDS, *OTHER_COMMANDS]),
    "second config missing": (["--config=nowhere.yaml"], ["nowhere.yaml"]),
    "points nowhere": (["--model.seed=${...seed_evrything}"], ["evrything"]),
    "alpha": (["--model.alpha=-0.1"], ["alpha", "-0.1", "at least 0"]),
    "alpha of a member": (["--model.alpha=[0.5,-1]"], ["alpha", "-1", "at least 0"]),
    "members twice": (["--model.alpha=[1.0,1.0]"], ["alpha"]),
    "no members": (["--model.alpha=[]"], ["alpha"]),
    "tau of a member": (["--model.tau=[0.1,2]"], ["tau", "2", "(0, 1]"]),
    "embedding of no width": (["--model.embedding_dim=0"], ["embedding_dim", "0"]),
    "no episodes": (["--data.episodes=0"], ["data.episodes", "0"]),
    "no patients": (["--evaluation.patients=0"], ["evaluation.patients", "0"]),
    "no report episodes": (["--data.report_episodes=0"], ["data.report_episodes", "0"]),
    "report share": (["--data.report_share=1"], ["data.report_share", "1"]),
    "held-out episodes twice": (["--data.report_seed=42"], ["data.report_seed", "must differ"]),
    "softening": (["--ope.epsilon=2"], ["ope.epsilon", "2"]),
    "typo in ope": (["--ope.epsylon=0.1"], ["ope.epsylon", "ope.epsilon"]),
    "no devices": (["--trainer.devices=0"], ["trainer.devices", "0"]),
    "unknown accelerator": (["--trainer.accelerator=abacus"], ["accelerator", "abacus"]),
    "unknown strategy": (["--trainer.strategy=chess"], ["strategy", "chess"]),
    "unknown precision": (["--trainer.precision=9"], ["precision", "9"]),
    "clipping by value": (["--trainer.gradient_clip_algorithm=value"], ["algorithm=value", "norm"]),
    "climbing": (["--trainer.gradient_clip_val=-1"], ["gradient_clip_val=-1", "from 0 upward"]),
    "logs never": (["--trainer.log_every_n_steps=-1"], ["log_every_n_steps=-1", "from 0"]),
    "no batches": (
        ["--trainer.accumulate_grad_batches=0"],
        ["accumulate_grad_batches=0", "from 1"],
    ),
    "share of no end": (["--trainer.overfit_batches=0.5"], ["overfit_batches=0.5", "integer"]),
    "half precision": (["--trainer.precision=16-true"], ["precision=16-true", "bf16-mixed"]),
    "spawned processes": (["--trainer.strategy=ddp_spawn"], ["strategy=ddp_spawn", "auto, ddp"]),
    "devices of no number": (["--trainer.devices=abc"], ["trainer.devices=abc"]),
    "missing accelerator": (["--trainer.accelerator=tpu"], ["trainer.accelerator=tpu"]),
    "monitors nothing": (["--checkpoint.monitor=nope"], ["monitor=nope", "ope/supported_value"]),
    "broken file name": (["--checkpoint.filename={"], ["checkpoint.filename={", "{step}"]),
    "patients of no seed": (["--evaluation.seed=-1"], ["evaluation.seed=-1", "from 0"]),
    "no number": (["--model.gamma=null"], ["model.gamma=null", "[0, 1]"]),
    "beyond all use": ([f"--data.episodes={2**63}"], ["data.episodes=9223372036854775808"]),
    "end of a text": (["--data.path=a\0b"], ["data.path", "control characters"]),
    "endless text": (["--data.path=" + 9999 * "a"], ["data.path=aaa", "9,999 characters"]),
    "folder for a file": (["--data.path=."], ["data.path=.", "it is a folder, and no Minari"]),
    "path of nothing": (["--data.path="], ["data.path=''", "a path"]),
    "drawn seed": (["--seed_everything=true"], ["seed_everything=True", "int"]),
    "schedule without an end": (["--trainer.max_steps=-1"], ["schedule=cosine", "max_steps"]),
    "mask without its name": (["--model.min_action_count=3"], ["min_action_count", "admissible"]),
    "dynamics of rows": (["--data.batch_size=64"], ["data.dynamics=empirical_bayes", "all"]),
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


def test_tasks_that_slurm_did_not_start_are_refused(lightning, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert_refused(lightning("fit", "cql"), "--ntasks=4", "--ntasks-per-node=4")
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
    ran = lightning("fit", "bc", "--model.hidden_dims=[1000000000000]")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    error = ran.err.splitlines()[-1]
    assert error.startswith("lightning: error: there is not enough memory")
    assert "allocate" in error


def test_the_command_line_wins_wherever_it_stands(lightning, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("data: {seed: 7}\n")
    words = ["--data.seed=5", f"--config={CONFIGS / 'bc.yaml'}", "--config", str(path)]
    ran = lightning.main("fit", *words, "--trainer.max_steps=3", "--print_config")
    config = yaml.safe_load(ran.out)
    assert (config["data"]["seed"], config["trainer"]["max_steps"]) == (5, 3)


def test_fit_needs_a_config(lightning, tmp_path):
    assert_refused(lightning.main("fit"), "model", "config")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        *(b"model: [", b"- a\n- list\n", b"just a word", b"\x00\x01", b"model: ${...nowhere}\n"),
        *(b"", b"null", b"model: \xff\n"),
        # Nine times nine times ... of nothing.
        b"\n".join(
            [
                b"a0: &a0 [x]",
                *(b"a%d: &a%d [%s]" % (i, i, b"*a%d, " % (i - 1) * 9) for i in range(1, 12)),
            ]
        ),
    ],
)
def test_a_malformed_config_is_refused(lightning, tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    assert_refused(lightning.main("fit", f"--config={path}"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_damaged_data_file_is_refused(runs, lightning, tmp_path, command):
    assert lightning.main("collect", "--episodes=20", "--output=data.npz").code == 0
    path = tmp_path / "data.npz"
    path.write_bytes(path.read_bytes()[:2000])
    before = files(tmp_path)
    options = ["--data.path=data.npz", *(["--ckpt_path=last"] if command == "validate" else [])]
    assert_refused(lightning(command, "cql", *options), "data.npz")
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_scoring_needs_a_checkpoint(lightning, tmp_path, command):
    assert_refused(lightning(command, "cql"), "--ckpt_path")
    assert_refused(lightning(command, "cql", "--ckpt_path=last"), "last", "runs/cql")
    assert_refused(lightning(command, "cql", "--ckpt_path=no.ckpt"), "no.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_table_of_metrics_is_left_alone(lightning, runs):
    path = runs / "cql/version_0/metrics.json"
    path.write_text("{")
    assert lightning("test", "cql", "--ckpt_path=last").code == 0
    assert path.read_text() == "{"
    assert "test" in json.loads(path.with_name("metrics-1.json").read_text())


@pytest.mark.slow
def test_weights_alone_are_scored_but_do_not_go_on(lightning):
    options = ["--checkpoint.save_weights_only=true", "--trainer.max_steps=2"]
    assert lightning("fit", "cql", *options).code == 0
    folder = Path("runs/cql/version_0/checkpoints")
    assert lightning("fit", "cql", *options, "--ckpt_path=last").code == 0  # that one is whole
    shutil.copy(folder / "step=2.ckpt", folder / "last.ckpt")
    assert lightning("validate", "cql", "--ckpt_path=last").code == 0
    assert_refused(lightning("fit", "cql", "--ckpt_path=last"), "last.ckpt", "weights alone")
    ran = lightning.main("report", "runs/cql/version_0", "--output=report")
    assert ran.code == 2
    assert "weights alone" in ran.err
    words = [f"--ckpt_path={folder / 'last.ckpt'}", "--member=0", "--output=one.ckpt"]
    assert lightning.main("export", *words).code == 0
    assert lightning("test", "cql", "--ckpt_path=one.ckpt").code == 0


class Payload:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    ("command", "planted"),
    [
        *((command, False) for command in ("fit", "validate", "predict")),
        *((command, True) for command in ("fit", "validate", "test", "predict", "export")),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused(runs, lightning, tmp_path, command, planted):
    """Of another algorithm, or with code that must not run; the rest stands in `tests/runs`."""
    path = runs / "bc" / "version_0" / "checkpoints" / "last.ckpt"
    if planted:
        held = torch.load(path, weights_only=True)
        torch.save({**held, "payload": Payload()}, path)
    said = ["last.ckpt"] if planted else ["last.ckpt", "BC", "CQL"]
    before = files(tmp_path)
    if command == "export":
        ran = lightning.main("export", f"--ckpt_path={path}", "--member=0", "--output=x.ckpt")
    else:
        ran = lightning(command, "cql", f"--ckpt_path={path}")
    assert_refused(ran, *said)
    assert not Path("ran").exists()
    assert files(tmp_path) == before


def test_inadmissible_actions_that_raise_are_one_message(runs, lightning):
    options = ["--ckpt_path=last", "--evaluation.strategy=raise_exception"]
    assert_refused(lightning("validate", "bc", *options), "inadmissible")
