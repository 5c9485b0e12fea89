"""What a parser's message becomes."""

import pytest

from sepsis_rl.cli.messages import explain, input_error_behind
from sepsis_rl.errors import InputError

OPTIONS = [
    "model",
    "data",
    "model.alpha",
    "model.gamma",
    "data.episodes",
    "data.seed",
    "trainer.max_steps",
]


@pytest.mark.parametrize(
    ("message", "name", "meant"),
    [
        ("Option 'data.epsiodes' is not accepted before and after subcommand", "data.epsiodes", 4),
        ("unrecognized arguments: --model.alhpa=3", "model.alhpa", 2),
        ("unrecognized arguments: --data.epsiodes 3", "data.epsiodes", 4),
        ("Validation failed: option 'max_step' is not accepted", "max_step", 6),
    ],
)
def test_an_unknown_option_and_what_was_meant(message, name, meant):
    text = explain(message, OPTIONS)
    assert f"'{name}'" in text
    assert f"Did you mean {OPTIONS[meant]}" in text
    assert "--help" in text


def test_nothing_like_it_is_no_hint():
    text = explain("unrecognized arguments: --xyzzyplugh=1", OPTIONS)
    assert "'xyzzyplugh'" in text
    assert "Did you mean" not in text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            "Parser key \"data.episodes\":\n  Expected a <class 'int'>. Got value: many",
            "data.episodes=many cannot be used; accepted: int",
        ),
        (
            'Parser key "x.rate":\n  Does not validate against any of the Union subtypes\n'
            "  Subtypes: [<class 'float'>, list[float], <class 'NoneType'>]\n"
            "  Errors:\n    - no\n  Given value type: <class 'str'>\n  Given value: high",
            "x.rate=high cannot be used; accepted: float, list[float], null",
        ),
        (
            'Parser key "e.strategy":\n'
            "  Expected a typing.Literal['mean', 'terminate']. Got value: none",
            "e.strategy=none cannot be used; accepted: 'mean', 'terminate'",
        ),
    ],
)
def test_a_wrong_value_and_what_is_accepted(message, text):
    assert explain(message, OPTIONS) == text


def test_a_missing_model_needs_a_config():
    for message in (
        "the following arguments are required: fit.model",
        "the following arguments are required: model",
    ):
        assert "--config" in explain(message, OPTIONS)
    assert "output" in explain("the following arguments are required: output", OPTIONS)


def test_what_is_not_understood_is_kept_on_one_line():
    assert explain("something\n  else\n", OPTIONS) == "something else"


def test_the_input_error_behind_an_exception():
    """It may be the cause of one, or what was handled when another one came up."""
    wrong, error, unrelated = InputError("wrong"), KeyError("other"), ValueError("outer")
    assert input_error_behind(None) is None
    assert input_error_behind(unrelated) is None
    assert input_error_behind(wrong) is wrong
    error.__context__ = wrong
    assert input_error_behind(error) is wrong
    unrelated.__cause__ = error
    assert input_error_behind(unrelated) is wrong


@pytest.mark.filterwarnings("default:the checkpoint was trained on other data")
def test_a_warning_is_a_sentence(runs, lightning):
    """Without the line of code that warns."""
    ran = lightning("validate", "cql", "--ckpt_path=last", "--data.seed=0")
    assert ran.code == 0
    (line,) = ran.err.splitlines()
    assert line.startswith(
        "lightning: warning: the checkpoint was trained on other data than these"
    )
