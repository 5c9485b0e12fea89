"""The TensorBoard logger: whose curves go where, and what TensorBoard makes of them."""

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from sepsis_rl.loggers import HPARAMS_METRICS, LAYOUT, RunLogger


@pytest.fixture
def logger(tmp_path):
    logger = RunLogger(str(tmp_path), "cql")
    yield logger
    logger.finalize("success")


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def points(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def hyper_parameters(folder):
    """What the HPARAMS page shows: settings and the names of the metrics."""
    summaries = read(folder).SummaryMetadata("_hparams_/experiment")
    experiment = plugin_data_pb2.HParamsPluginData.FromString(summaries.plugin_data.content)
    metrics = [info.name.tag for info in experiment.experiment.metric_infos]
    summaries = read(folder).SummaryMetadata("_hparams_/session_start_info")
    start = plugin_data_pb2.HParamsPluginData.FromString(summaries.plugin_data.content)
    settings = {
        name: value.string_value or value.number_value
        for name, value in start.session_start_info.hparams.items()
    }
    return settings, metrics


# -- folders -----------------------------------------------------------------------------------


def test_a_run_takes_the_next_number(tmp_path):
    for name in ("version_0", "version_7", "notes"):
        (tmp_path / "cql" / name).mkdir(parents=True)
    assert Path(RunLogger(str(tmp_path), "cql").log_dir) == tmp_path / "cql" / "version_8"
    assert Path(RunLogger(str(tmp_path), "bc").log_dir) == tmp_path / "bc" / "version_0"


def test_nothing_is_written_before_there_is_something(tmp_path):
    logger = RunLogger(str(tmp_path), "cql")
    logger.log_hyperparams({"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_parents_own_file_is_not_written(logger):
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.log_hyperparams({"alpha": 1.0})
    logger.save()
    assert [path.name.split(".tfevents")[0] for path in Path(logger.log_dir).iterdir()] == [
        "events.out"
    ]


# -- curves ------------------------------------------------------------------------------------


def test_metrics_go_to_the_run_and_to_its_members(logger):
    logger.log_metrics({"train/loss": 1.0, "a=1,seed=2/train/loss": 2.0, "a=0.5/val/x": 3.0}, 5)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0.0}, 6)
    logger.save()
    run = Path(logger.log_dir)
    assert points(run, "train/loss") == [(5, 1.0), (6, 0.5)]
    assert read(run).Tags()["scalars"] == ["train/loss"]
    assert points(run / "members" / "a=1,seed=2", "train/loss") == [(5, 2.0)]
    assert points(run / "members" / "a=0.5", "val/x") == [(5, 3.0)]


def test_a_point_is_written_once(logger):
    """When a run stops, Lightning logs its last values once more."""
    for step, value in ((5, 1.0), (5, 1.0), (6, 1.0), (6, 1.0)):
        logger.log_metrics({"train/loss": value, "m=1/train/loss": value}, step)
    logger.log_metrics({"val/loss": 2.0}, 6)
    logger.save()
    for folder in (Path(logger.log_dir), Path(logger.log_dir, "members", "m=1")):
        assert points(folder, "train/loss") == [(5, 1.0), (6, 1.0)]
    assert points(logger.log_dir, "val/loss") == [(6, 2.0)]


# -- pages -------------------------------------------------------------------------------------


def test_the_layout_is_a_page_of_custom_scalars(logger):
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.log_metrics({"train/loss": 1.0}, 2)
    logger.save()
    (event,) = read(logger.log_dir).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == list(LAYOUT)
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    margin = charts["rollouts with 95 % interval"].margin.series[0]
    assert (margin.value, margin.lower, margin.upper) == (
        "val/survival_rate",
        "val/survival_rate_low",
        "val/survival_rate_high",
    )


@pytest.mark.parametrize("config", ["cql", "bc"])
def test_every_chart_of_the_layout_has_its_curves(finished_runs, config):
    """Its tags are regular expressions, which TensorBoard anchors at the beginning."""
    tags = read(finished_runs / "runs" / config / "version_0").Tags()["scalars"]
    for charts in LAYOUT.values():
        for title, (_, patterns) in charts.items():
            shown = [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]
            assert shown or (config == "bc" and title.startswith("Q of")), title
    if config == "cql":
        charts = {title: chart for group in LAYOUT.values() for title, chart in group.items()}
        for title, expected in (
            ("Q of the data's actions and largest Q", {"train/q_data", "train/q_max"}),
            (
                "rollouts, exact, and the network's own estimate",
                {"val/survival_rate", "val/survival_exact", "val/value_estimate"},
            ),
        ):
            _, patterns = charts[title]
            assert {tag for tag in tags if any(re.match(p, tag) for p in patterns)} == expected


@pytest.mark.parametrize(
    ("config", "member", "settings"),
    [
        ("cql", "", {"algorithm": "CQL", "alpha": 0.003, "seed": 42, "learning_rate": 1e-3}),
        ("bc", "", {"algorithm": "BC", "seed": 42, "learning_rate": 1e-3}),
        ("sweep", "alpha=1,seed=7", {"algorithm": "CQL", "alpha": 1.0, "seed": 7, "gamma": 1.0}),
    ],
)
def test_hyper_parameters_are_shown_with_the_figures(finished_runs, config, member, settings):
    run = finished_runs / "runs" / config / "version_0"
    run = run / "members" / member if member else run
    shown, metrics = hyper_parameters(run)
    assert shown.items() >= settings.items()
    assert metrics == list(HPARAMS_METRICS)
    assert set(metrics) <= set(read(run).Tags()["scalars"])
