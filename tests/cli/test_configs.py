"""The YAML files of `configs/` against the real signatures."""

from pathlib import Path

import pytest
import torch
import yaml

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.runs.untrusted import read_checkpoint

CONFIGS = Path(__file__).parents[2] / "configs"
ALGORITHMS = {"cql": CQL, "dqn": DQN, "bc": BC, "sweep": CQL}


def read(name):
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


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
        ran = lightning.main("fit", *words, "--print_config")
        assert (ran.code, ran.err) == (0, "")
        return yaml.safe_load(ran.out)

    return parsed


def test_every_config_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(ALGORITHMS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_key_is_an_option_and_keeps_its_value(parsed, name):
    config = parsed(f"--config={CONFIGS / name}.yaml")
    for key, value in leaves(read(name)):
        if not str(value).startswith("${"):
            assert at(config, key) == value, key


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_model_is_spelled_out(name):
    """No setting of an algorithm hides in a default."""
    algorithm, model = ALGORITHMS[name], read(name)["model"]
    assert model["class_path"] == f"sepsis_rl.algorithms.{algorithm.__name__}"
    assert set(model["init_args"]) == set(algorithm().hparams)


@pytest.mark.parametrize("name", ["dqn", "bc", "sweep"])
def test_what_configs_share_is_the_same(name):
    ours, theirs = read(name), read("cql")
    del ours["model"], theirs["model"]
    assert ours["trainer"]["logger"]["init_args"].pop("name") == name
    assert theirs["trainer"]["logger"]["init_args"].pop("name") == "cql"
    assert ours == theirs


def test_the_settings_of_the_essay():
    config = read("cql")
    settings = {
        "alpha": 0.5,
        "gamma": 0.99,
        "learning_rate": 3e-4,
        "tau": 0.005,
        "embedding_dim": 256,
        "hidden_dims": [256, 256],
        "double_q": False,
    }
    assert config["model"]["init_args"].items() >= settings.items()
    data = {"policy": "clinician", "episodes": 5000, "held_out_episodes": 1000, "batch_size": 256}
    assert config["data"].items() >= data.items()
    trainer = {"max_steps": 100_000, "val_check_interval": 5000, "gradient_clip_val": 1.0}
    assert config["trainer"].items() >= trainer.items()
    assert config["evaluation"]["patients"] == 10_000
    assert config["evaluation"]["strategy"] == "mean"


@pytest.mark.parametrize("path", sorted((CONFIGS / "essay").iterdir()), ids=lambda path: path.stem)
def test_a_variation_varies_one_thing(lightning, path):
    """Of the grid at alpha 1, for fewer steps."""
    ran = lightning.main(
        "fit", f"--config={CONFIGS / 'sweep.yaml'}", f"--config={path}", "--print_config"
    )
    assert ran.code == 0
    ours, theirs = yaml.safe_load(ran.out), read("sweep")
    changed = {
        (group, key)
        for group in ("model", "data", "trainer")
        for key, value in (theirs[group].get("init_args") or theirs[group]).items()
        if (ours[group].get("init_args") or ours[group])[key] != value
    }
    changed -= {("model", "alpha"), ("trainer", "max_steps"), ("trainer", "logger")}
    assert {key for _, key in changed} in (
        {"episodes"},
        {"learning_rate"},
        {"hidden_dims"},
        {"embedding_dim", "hidden_dims"},
    )
    settings = ours["model"]["init_args"]
    assert (settings["alpha"], settings["seed"]) == (1.0, [42, 123, 456])
    assert ours["trainer"]["max_steps"] == 20_000
    assert ours["trainer"]["logger"]["init_args"]["name"] == f"essay-{path.stem}"


def test_the_grid_of_the_essay():
    members = CQL(**read("sweep")["model"]["init_args"]).members
    assert len(members) == 21
    grid = {(setting["alpha"], setting["seed"]) for setting in members.settings}
    assert grid == {(a, s) for a in (0, 0.1, 0.5, 1, 2, 5, 10) for s in (42, 123, 456)}


@pytest.mark.parametrize(
    "place", ["", "model.init_args.", "data.", "evaluation.", "checkpoint.", "trainer."]
)
def test_a_key_that_is_no_option_is_refused(lightning, tmp_path, place):
    config = read("cql")
    node = at(config, place.rstrip(".")) if place else config
    node["epsiodes"] = 3
    path = tmp_path / "typo.yaml"
    path.write_text(yaml.safe_dump(config))
    ran = lightning.main("fit", f"--config={path}", "--trainer.max_steps=1")
    assert ran.code == 2
    assert "epsiodes" in ran.err
    assert not (tmp_path / "runs").exists()


# -- interpolation and precedence --------------------------------------------------------------


@pytest.fixture
def other(tmp_path):
    """A second config that changes the seed."""
    path = tmp_path / "other.yaml"
    path.write_text("seed_everything: 9\n")
    return f"--config={path}"


@pytest.mark.parametrize("name", ["cql", "dqn", "bc"])
def test_the_seed_of_the_model_follows_that_of_the_run(parsed, other, name):
    config = f"--config={CONFIGS / name}.yaml"
    cases = [([config, "--seed_everything", "7"], 7), ([config, other], 9)]
    if name == "cql":
        cases += [
            ([config], 42),
            ([config, other, "--seed_everything=7"], 7),
            ([config, "--seed_everything=7", "--model.seed=3"], 3),
        ]
    for words, seed in cases:
        result = parsed(*words)
        assert result["model"]["init_args"]["seed"] == seed
        assert result["data"]["seed"] == 42  # the same records for all seeds


@pytest.mark.parametrize(
    ("change", "seed"), [(["--seed_everything", "7"], 7), (["other"], 9), ([], 42)]
)
def test_the_followed_seed_is_what_is_trained(lightning, other, change, seed):
    words = [other if word == "other" else word for word in change]
    assert lightning("fit", "bc", *words, "--trainer.max_steps=1").code == 0
    checkpoint = read_checkpoint("runs/bc/version_0/checkpoints/last.ckpt")
    assert checkpoint["hyper_parameters"]["seed"] == seed
    assert yaml.safe_load(Path("runs/bc/version_0/config.yaml").read_text())["seed_everything"] == (
        seed
    )


@pytest.mark.parametrize("config", ["cql", "sweep"])
def test_the_saved_config_makes_the_same_run(runs, lightning, config):
    first = runs / config / "version_0"
    assert lightning.main("fit", f"--config={first / 'config.yaml'}").code == 0
    second = runs / config / "version_1"
    assert (second / "config.yaml").read_bytes() == (first / "config.yaml").read_bytes()
    ours, theirs = (
        read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (first, second)
    )
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (second / "metrics.json").read_bytes() == (first / "metrics.json").read_bytes()
