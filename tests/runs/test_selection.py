"""`lightning select`: a choice from recorded data alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.ope import Episodes, OffPolicyOptions, evaluate_off_policy
from sepsis_rl.ope.criteria import CRITERIA, criterion_values, regret, regret_of_chance
from sepsis_rl.ope.supported_value import SupportedValue, alike, resampled_values
from sepsis_rl.planning import evaluate
from sepsis_rl.runs.finished import candidates, read_run

SWEEP, BC = "runs/sweep/version_0", "runs/bc/version_0"


@pytest.fixture
def select(runs, lightning):
    def select(*words):
        ran = lightning.main("select", *words, "--resamples=10")
        assert (ran.code, ran.err) == (0, "")
        return ran.out

    return select


def judged():
    """The different policies of both runs, and what their held-out episodes say of them."""
    runs = [read_run(SWEEP), read_run(BC)]
    found = []
    for candidate in candidates(runs):
        table = candidate.policy.probabilities
        if not any(np.array_equal(table, other.policy.probabilities) for other in found):
            found.append(candidate)
    assert 1 < len(found) < len(candidates(runs))
    scores = evaluate_off_policy(
        [candidate.policy for candidate in found],
        Episodes(runs[0].data.held_out, 716, 25),
        refit=False,
        options=OffPolicyOptions(resamples=10),
        model=SupportedValue(all_counts(runs[0].data), runs[0].data.mdp),
    )
    return found, scores


def all_counts(data):
    return data.counts + data.held_out.counts(716, 25)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_choice_is_the_best_by_its_criterion(select, criterion):
    out = select(SWEEP, BC, f"--criterion={criterion}", "--output=choice.json")
    choice = json.loads(Path("choice.json").read_text())
    found, scores = judged()
    best = found[int(criterion_values(scores, criterion).argmax())]
    chosen = choice["chosen"]
    assert choice["criterion"] == criterion
    assert (chosen["name"], chosen["member"], chosen["step"]) == (best.name, best.member, best.step)
    assert Path(chosen["checkpoint"]).resolve() == best.checkpoint
    assert Path(chosen["run"]).resolve() == best.run
    assert best.name in out
    assert list(choice["select"]["policies"]) == [candidate.name for candidate in found]
    for index, figures in enumerate(choice["select"]["policies"].values()):
        for name in ("fqe", "fqe_zero", "wis", "wdr"):
            assert figures[name] == pytest.approx(scores.estimates[name][index], abs=1e-12)
    assert f"{len(found)} different policies on 50" in out
    assert "same: candidates of this very policy" in out
    first = out.partition("Chosen by")[0]
    assert ("value %" in first) != ("robust %" in first)
    assert first.count("supported") == 2 * (criterion == "supported_value")  # title and column
    assert "truth" not in choice
    assert "exact" not in out


def test_the_figure_of_the_chosen_one_is_from_other_episodes(select):
    """Those that nothing was chosen by, which nothing was trained on either."""
    out = select(SWEEP, "--output=choice.json")
    choice = json.loads(Path("choice.json").read_text())
    data = read_run(SWEEP).data
    hashes = [data.train.content_hash, data.held_out.content_hash, data.report.content_hash]
    assert len(set(hashes)) == 3
    assert (choice["select"]["content_hash"], choice["report"]["content_hash"]) == tuple(hashes[1:])
    chosen = next(c for c in candidates([read_run(SWEEP)]) if c.name == choice["chosen"]["name"])
    scores = evaluate_off_policy(
        [chosen.policy], Episodes(data.report, 716, 25), options=OffPolicyOptions(resamples=10)
    )
    (figures,) = choice["report"]["policies"].values()
    assert figures["fqe"] == pytest.approx(float(scores.estimates["fqe"][0]), abs=1e-12)
    assert figures["fqe_low"] == pytest.approx(float(scores.interval("fqe").low[0]), abs=1e-6)
    selected = choice["select"]["policies"][chosen.name]["fqe"]
    assert abs(selected - figures["fqe"]) > 1e-3
    assert f"{100 * figures['fqe']:.1f} (" in out
    assert "episodes, of the report, which chose nothing" in out
    assert "cannot judge" in out
    assert "Not for clinical use" in out


def test_the_command_for_the_chosen_policy_works(select, lightning):
    out = select(SWEEP, BC)
    (line,) = [line for line in out.splitlines() if "lightning predict" in line]
    words = line[line.index("lightning predict") :].split()[1:]
    assert lightning.main(*words).code == 0
    assert list(Path("runs").rglob("policy.csv"))


@pytest.mark.slow
def test_truth_beside(select, mdp):
    out = select(SWEEP, BC, "--truth", "--output=choice.json")
    choice = json.loads(Path("choice.json").read_text())
    found, scores = judged()
    truth = true_dynamics(mdp)
    survival = np.array([evaluate(truth, c.policy.probabilities).survival for c in found])
    assert choice["truth"]["survival_exact"] == pytest.approx(
        {candidate.name: value for candidate, value in zip(found, survival, strict=True)}
    )
    regrets = choice["truth"]["regret"]
    assert set(regrets) == {*CRITERIA, "chance"}
    for criterion in CRITERIA:
        expected = regret(criterion_values(scores, criterion), survival)
        assert regrets[criterion] == pytest.approx(expected)
    assert regrets["chance"] == pytest.approx(regret_of_chance(survival))
    assert f"{100 * regrets['chance']:.2f}" in out
    assert "exact %" in out


@pytest.mark.slow
def test_that_no_criterion_beats_chance_is_said(select, monkeypatch):
    monkeypatch.setattr("sepsis_rl.runs.choice.regret", lambda *_: 1.0)
    found, _ = judged()
    said = f"No criterion beats chance among these {len(found)} policies on 50 episodes"
    assert said in select(SWEEP, BC, "--truth")
    monkeypatch.setattr("sepsis_rl.runs.choice.regret", lambda *_: 0.0)
    assert "beats chance on one set of episodes is no proof" in select(SWEEP, BC, "--truth")


@pytest.mark.slow
def test_which_the_records_cannot_tell_apart(select):
    """Looked for among the ten best, on ten resamples here."""
    out = select(SWEEP, BC, "--output=choice.json")
    choice = json.loads(Path("choice.json").read_text())
    found, scores = judged()
    values = scores.supported.value
    first = np.argsort(-values, kind="stable")[:10]
    data = read_run(SWEEP).data
    parts = [Episodes(part, 716, 25) for part in (data.train, data.held_out)]
    policies = [found[index].policy for index in first]
    replicates = resampled_values(policies, parts, data.mdp, resamples=10)
    close = first[alike(values[first], replicates.value)]
    anchored = scores.supported.anchored[first[0]]
    reach = 1.96 * replicates.anchored[:, 0].std(ddof=1)
    expected = [anchored, anchored - reach, anchored + reach]
    assert choice["anchored"] == pytest.approx(expected, abs=1e-12)
    assert "it is worth {:.1f} % ({:.1f}–{:.1f})".format(*(100 * x for x in expected)) in out
    assert choice["alike"] == [found[index].name for index in close]
    assert choice["alike"][0] == choice["chosen"]["name"]
    assert len(close) > 1
    assert "cannot tell from it, on resampled episodes: " + found[close[1]].name in out
    nearest = found[close[scores.supported.rarity[close].argmin()]].name
    which = "it" if nearest == choice["alike"][0] else nearest
    assert f"Of these {which} keeps most to decisions that are often recorded" in out


@pytest.mark.slow
def test_the_price_of_rare_decisions_is_an_option(select):
    """At ten lives for each nothing else counts, and on resampled episodes neither."""
    select(SWEEP, BC, "--penalty=10", "--output=choice.json")
    choice = json.loads(Path("choice.json").read_text())
    found, scores = judged()
    rarest = scores.supported.rarity
    assert choice["chosen"]["name"] == found[rarest.argmin()].name
    paid = scores.supported.modeled - 10 * rarest
    for index, figures in enumerate(choice["select"]["policies"].values()):
        assert figures["supported_value"] == pytest.approx(paid[index], abs=1e-9)
    data = read_run(SWEEP).data
    parts = [Episodes(part, 716, 25) for part in (data.train, data.held_out)]
    first = np.argsort(-paid, kind="stable")[:10]
    policies = [found[index].policy for index in first]
    replicates = resampled_values(policies, parts, data.mdp, penalty=10, resamples=10)
    close = first[alike(paid[first], replicates.value)]
    assert choice["alike"] == [found[index].name for index in close]


@pytest.mark.slow
def test_one_policy_is_no_choice_and_few_episodes_make_a_guess(runs, lightning):
    one = ("--trainer.max_steps=1", "--trainer.val_check_interval=1")
    few = ("--data.held_out_episodes=49", "--trainer.logger.init_args.name=few")
    assert lightning("fit", "bc", *one, "--trainer.logger.init_args.name=one").code == 0
    assert lightning("fit", "sweep", *one, *few).code == 0
    ran = lightning.main("select", "runs/one/version_0", "--resamples=2")
    assert "nothing to choose among: one policy" in ran.out
    ran = lightning.main("select", "runs/few/version_0", "--resamples=2")
    assert "Choosing by 49 held-out episodes is a guess; have 50 or more" in ran.out


def test_where_the_choice_goes(select):
    """To the folder that holds all runs, beside earlier choices."""
    select(SWEEP)
    select(SWEEP)
    select(SWEEP, BC)
    written = sorted(path.as_posix() for path in Path("runs").rglob("selection*.json"))
    folder = "runs/sweep/version_0"
    assert written == [
        "runs/selection.json",
        f"{folder}/selection-1.json",
        f"{folder}/selection.json",
    ]
    again = [Path(folder, name).read_bytes() for name in ("selection.json", "selection-1.json")]
    assert again[0] == again[1]


def test_a_run_given_twice_counts_once(select):
    assert "3 different policies on" in select(BC, f"{BC}/")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["runs"]),
        (["nowhere"], ["nowhere", "is no run", "runs/cql/version_0"]),
        ([BC, "--criterion=best"], ["criterion", "best", "fqe", "two_stage"]),
        ([BC, "--epsilon=2"], ["epsilon=2.0", "0 to 1"]),
        ([BC, "--output=taken"], ["taken", "exists"]),
        ([BC, "--trut"], ["trut", "Did you mean truth"]),
    ],
)
def test_what_select_refuses(runs, lightning, words, said):
    Path("taken").touch()
    before = sorted(Path().rglob("*"))
    ran = lightning.main("select", *words)
    assert ran.code == 2
    assert ran.err.startswith("lightning: error: ")
    for text in said:
        assert text in ran.err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("option", ["held_out_seed=5", "report_seed=5", "report_episodes=40"])
def test_runs_that_do_not_share_their_episodes(runs, lightning, option):
    assert lightning("fit", "bc", f"--data.{option}").code == 0
    ran = lightning.main("select", BC, "runs/bc/version_1")
    assert ran.code == 2
    assert "do not share their" in ran.err
    assert option.split("_")[0] in ran.err


def test_runs_may_differ_in_what_they_were_trained_on(runs, lightning):
    assert lightning("fit", "bc", "--data.episodes=100").code == 0
    assert lightning.main("select", BC, "runs/bc/version_1", "--resamples=5").code == 0
