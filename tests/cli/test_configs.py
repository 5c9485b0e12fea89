"""The YAML files that are shipped, and the runs of the Makefile, against the real signatures."""

import inspect
import itertools
import subprocess
from pathlib import Path

import lightning.pytorch as pl
import pytest
import yaml
from comparing import assert_equal, last
from lightning.pytorch.callbacks import ModelCheckpoint

from sepsis_rl.algorithms import CQL
from sepsis_rl.cli.assembly import DEFAULTS

TOP = Path(__file__).parents[2]
CONFIGS = TOP / "configs"
NAMES = ["bc", "cql", "dqn", "sweep"]


def read(path):
    return yaml.safe_load(path.read_text())


def leaves(tree, path=""):
    """Every value of a nested mapping under its dotted key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def at(tree, path):
    for key in path.split("."):
        tree = tree[key]
    return tree


@pytest.fixture
def parsed(lightning):
    """What the parser makes of words, without running anything."""

    def parsed(*words):
        ran = lightning.main("fit", *words, "--print_config=")  # without comments, which take time
        assert (ran.code, ran.err) == (0, "")
        return yaml.safe_load(ran.out)

    return parsed


def test_every_config_is_tested():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_an_option_that_changes_its_default(parsed, name):
    content = read(CONFIGS / f"{name}.yaml")
    config = parsed(f"--config={CONFIGS / name}.yaml")
    defaults = parsed(f"--model={content['model']['class_path']}")
    for key, value in leaves(content):
        if key != "model.class_path":
            assert value != at(defaults, key), key
        if not str(value).startswith("${"):
            assert at(config, key) == value, key


def test_the_defaults_are_options_of_lightning_with_another_value(parsed):
    content, config = read(DEFAULTS), parsed("--model=BC")
    for key, value in leaves(content):
        assert at(config, key) == value, key
    for group, owner in (("checkpoint", ModelCheckpoint), ("trainer", pl.Trainer)):
        signature = inspect.signature(owner).parameters
        for key, value in content[group].items():
            assert signature[key].default != value, key


def test_the_settings_of_the_essay(parsed):
    config = parsed(f"--config={CONFIGS / 'essay' / 'cql.yaml'}")
    settings = {
        "alpha": 0.5,
        "temperature": 1.0,
        "gamma": 0.99,
        "learning_rate": 3e-4,
        "tau": 0.005,
        "embedding_dim": 256,
        "hidden_dims": [256, 256],
        "double_q": False,
        "actions": "all",
        "value_range": None,
        "schedule": "constant",
    }
    assert config["model"]["init_args"].items() >= settings.items()
    data = {"policy": "clinician", "episodes": 5000, "held_out_episodes": 1000, "batch_size": 256}
    assert config["data"].items() >= data.items()
    trainer = {"max_steps": 100_000, "val_check_interval": 5000, "gradient_clip_val": 1.0}
    assert config["trainer"].items() >= trainer.items()
    assert config["evaluation"]["patients"] == 10_000
    assert config["evaluation"]["strategy"] == "mean"


def test_every_config_has_a_dozen_evaluations(parsed):
    for path in CONFIGS.rglob("*.yaml"):
        trainer = parsed(f"--config={path}")["trainer"]
        assert trainer["max_steps"] // trainer["val_check_interval"] >= 12, path


def test_the_grid_of_the_essay(parsed):
    config = parsed(f"--config={CONFIGS / 'essay' / 'sweep.yaml'}")
    members = CQL(**config["model"]["init_args"]).members
    assert len(members) == 21
    grid = {(setting["alpha"], setting["seed"]) for setting in members.settings}
    assert grid == {(a, s) for a in (0, 0.1, 0.5, 1, 2, 5, 10) for s in (42, 123, 456)}


VARIATIONS = {
    **{f"episodes-{size}": {"data.episodes": size} for size in (1000, 10_000, 50_000, 100_000)},
    **{
        f"width-{width}": {
            "model.init_args.embedding_dim": width,
            "model.init_args.hidden_dims": [width, width],
        }
        for width in (64, 128, 512)
    },
    "depth-3": {"model.init_args.hidden_dims": [256, 256, 256]},
    "learning-rate": {"model.init_args.learning_rate": [1e-4, 1e-3, 3e-3]},
}


@pytest.fixture
def made(tmp_path, lightning):
    """The words of each command that a target of the Makefile runs, none of which is run."""

    def made(target):
        log, program = tmp_path / "log", tmp_path / "bin" / "lightning"
        program.parent.mkdir()
        program.write_text(f"#!/bin/bash\nprintf '%s\\t' \"$@\" >>{log}; echo >>{log}\n")
        program.chmod(0o755)
        stamp = program.with_name("installed")
        stamp.touch()
        for name in ("configs", "pyproject.toml", "constraints.txt"):
            (tmp_path / name).symlink_to(TOP / name)
        # What `make test-full ARGS=...` was given is not for the make that is tested.
        ours = (f"BIN={stamp.parent}", f"STAMP={stamp}", "ARGS=")
        words = ["make", "-sf", TOP / "Makefile", target, *ours]
        subprocess.run(words, cwd=tmp_path, check=True)
        return [line.split("\t")[:-1] for line in log.read_text().splitlines()]

    return made


@pytest.mark.slow
def test_the_variations_each_vary_one_thing_of_the_grid(made, parsed):
    *fits, report = made("reproduce-more")
    assert report[0] == "report"
    runs = {config["trainer"]["logger"]["init_args"]["name"]: config
            for config in (parsed(*words[1:]) for words in fits)}  # fmt: skip
    data_seeds = {f"essay-{name}-data-{seed}" for name in ("bc", "cql") for seed in (1, 2, 3, 4)}
    variations = {f"essay-{name}" for name in VARIATIONS}
    assert set(runs) == {"essay-bc", "essay-cql"} | data_seeds | variations
    grid = dict(leaves(parsed(f"--config={CONFIGS / 'essay' / 'sweep.yaml'}")))
    for name, varied in VARIATIONS.items():
        expected = {
            **grid,
            **varied,
            "model.init_args.alpha": 1.0,
            "trainer.max_steps": 20_000,
            "trainer.logger.init_args.name": f"essay-{name}",
        }
        assert dict(leaves(runs[f"essay-{name}"])) == expected


def test_the_runs_of_the_scorecard(made, parsed):
    *fits, scorecard = made("scorecard")
    names = [f"scorecard-{name}" for name in ("bc", "cql")]
    configs = [parsed(*words[1:]) for words in fits]
    assert [config["trainer"]["logger"]["init_args"]["name"] for config in configs] == names
    assert all(config["checkpoint"]["save_top_k"] == -1 for config in configs)
    folders = [f"runs/{name}/version_*" for name in names]
    assert scorecard == ["scorecard", *folders, "--output", "scorecard", "--data_sets", "30"]


@pytest.mark.parametrize("place", ["", "model", "data", "evaluation", "checkpoint", "trainer"])
def test_a_key_that_is_no_option_is_refused(lightning, tmp_path, place):
    config = read(CONFIGS / "cql.yaml")
    node = config.setdefault(place, {}) if place else config
    node.get("init_args", node)["epsiodes"] = 3
    (tmp_path / "typo.yaml").write_text(yaml.safe_dump(config))
    ran = lightning.main("fit", "--config=typo.yaml", "--trainer.max_steps=1")
    assert ran.code == 2
    assert "epsiodes" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["typo.yaml"]


# -- --print_config ----------------------------------------------------------------------------


def test_a_printed_config_has_a_comment_on_every_setting(lightning):
    ran = lightning.main("fit", f"--config={CONFIGS / 'cql.yaml'}", "--print_config")
    lines = ran.out.splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(lines)
        if ":" in line and not line.strip().startswith("#") and not before.strip().startswith("#")
    ]
    assert [line.split(":")[0].strip() for line in bare] == ["class_path", "class_path"]
    assert all("known subclasses" not in line for line in lines)


# -- interpolation and precedence --------------------------------------------------------------


@pytest.mark.parametrize("name", ["cql", "dqn", "bc"])
def test_the_seed_of_the_model_follows_that_of_the_run(parsed, tmp_path, name):
    (tmp_path / "other.yaml").write_text("seed_everything: 9\n")
    other = "--config=other.yaml"
    cases = [(["--seed_everything", "7"], 7), ([other], 9)]
    if name == "cql":
        cases += [
            ([], 42),
            ([other, "--seed_everything=7"], 7),
            (["--seed_everything=7", "--model.seed=3"], 3),
        ]
    for words, seed in cases:
        result = parsed(f"--config={CONFIGS / name}.yaml", *words)
        assert result["model"]["init_args"]["seed"] == seed
        assert result["data"]["seed"] == 42  # the same records for all seeds


@pytest.mark.parametrize("config", ["cql", "sweep"])
def test_the_saved_config_makes_the_same_run(runs, lightning, config):
    """And so does the printed one."""
    first = runs / config / "version_0"
    words = [f"--config={first / 'config.yaml'}"]
    if config == "cql":
        printed = lightning("fit", "cql", "--print_config")
        Path("printed.yaml").write_text(printed.out)
        words = ["--config=printed.yaml"]
        assert lightning.main("fit", *words, "--print_config") == printed
    assert lightning.main("fit", *words).code == 0
    second = runs / config / "version_1"
    for name in ("config.yaml", "metrics.json"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    assert_equal(last(second)["state_dict"], last(first)["state_dict"])


def test_the_saved_config_is_complete(finished_runs):
    """Also what the command line changed, and all defaults."""
    config = read(finished_runs / "runs/cql/version_0/config.yaml")
    assert config["model"]["init_args"]["hidden_dims"] == [16]
    assert config["data"]["episodes"] == 200
    assert config["trainer"]["max_steps"] == 10
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert config["evaluation"]["strategy"] == "mean"
