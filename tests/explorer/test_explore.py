"""`lightning explore`: which policies it takes, what it writes, what it refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sepsis_rl.explorer.shown import read_policies
from sepsis_rl.ope.supported_value import PENALTY, supported_value_of
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.untrusted import read_checkpoint

SMALL = ("--output=page.html", "--patients=100")
WARNING = "Not for clinical use."


def content_of(path):
    """What stands in a page as JSON."""
    text = Path(path).read_text()
    (found,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    return json.loads(found, parse_constant=pytest.fail)


def diverge(run, members=slice(None)):
    """Makes members of the last checkpoint diverge."""
    for name in ("last.ckpt", "step=10.ckpt"):
        path = run / "checkpoints" / name
        checkpoint = read_checkpoint(path)
        for key, weights in checkpoint["state_dict"].items():
            if key.startswith("q_network"):
                weights[members] = torch.nan
        torch.save(checkpoint, path)


def test_one_page_that_needs_nothing_else(lightning, runs):
    ran = lightning.main("explore", "runs/cql/version_0", "runs/bc/version_0", *SMALL)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[:2] == [
        "cql: CQL, run cql/version_0, step 10",
        "bc: BC, run bc/version_0, step 10",
    ]
    assert "page.html" in ran.out
    assert WARNING in ran.out
    text = Path("page.html").read_text()
    assert text.count(WARNING) > 2
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", text)
    assert "default-src 'none'" in text
    assert Path("page.html").stat().st_size < 5e6
    assert [own["name"] for own in content_of("page.html")["policies"]] == ["cql", "bc"]
    again = lightning.main("explore", "runs/cql/version_0", *SMALL)
    assert (again.code, "page.html exists already" in again.err) == (2, True)


def test_of_several_members_the_best_supported_one(runs):
    data, (shown,), recorded = read_policies([runs / "sweep" / "version_0"])
    module = load_algorithm(runs / "sweep" / "version_0" / "checkpoints" / "last.ckpt")
    model = supported_value_of(data.counts, data.held_out, data.mdp, PENALTY)
    values = model.judge(module.policies()).value
    best = int(values.argmax())
    assert shown.supported_value == values[best] > values.min()
    assert f"member {best} ({module.members.names[best]})" in shown.origin
    assert "best supported value of the run's 4" in shown.origin
    np.testing.assert_array_equal(shown.q, module.all_scores()[best].double().numpy())
    assert 0 < recorded < 1


def test_a_member_that_diverged_is_left_out(lightning, runs):
    diverge(runs / "sweep" / "version_0", slice(0, 3))
    _, (shown,), _ = read_policies([runs / "sweep" / "version_0"])
    assert "member 3 (alpha=1,seed=7)" in shown.origin


def test_a_run_whose_last_checkpoint_diverged_shows_no_earlier_one(lightning, runs):
    diverge(runs / "cql" / "version_0")
    ran = lightning.main("explore", "runs/cql/version_0", *SMALL)
    assert ran.code == 2
    assert "all have diverged" in ran.err
    assert not Path("page.html").exists()
    ran = lightning.main("explore", "runs/cql/version_0", "runs/bc/version_0", *SMALL)
    assert ran.code == 0
    assert "cql step 10 is left out: its network has diverged" in ran.err
    assert [own["name"] for own in content_of("page.html")["policies"]] == ["bc"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["output", "runs"]),
        (["nowhere", *SMALL], ["nowhere", "is no run"]),
        (["runs/cql/version_0", "--output=taken.html"], ["--output taken.html exists"]),
        (["runs/cql/version_0", "--output=a.html", "--patients=1"], ["--patients 1", "100 to"]),
        (["runs/cql/version_0", "--output=a.html", "--seed=-1"], ["--seed -1"]),
        (["runs/cql/version_0", "runs/moved/version_0", *SMALL], ["same records", "200 episodes"]),
    ],
)
def test_what_explore_refuses(lightning, runs, tmp_path, words, said):
    Path("taken.html").write_text("mine")
    shutil.copytree(runs / "bc", runs / "moved")
    config = runs / "moved" / "version_0" / "config.yaml"
    config.write_text(re.sub(r"(held_out_episodes): 50", r"\1: 51", config.read_text()))
    ran = lightning.main("explore", *words)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    for text in said[:1] if words == [] else said:
        assert text in ran.err
    assert [path.name for path in tmp_path.glob("*.html")] == ["taken.html"]


def test_a_hostile_name_is_only_a_name(lightning, runs):
    hostile = runs.parent / "<" / "script><script>window.broken=1<" / "script>"
    shutil.copytree(runs / "cql" / "version_0", hostile)
    shutil.copytree(runs / "bc" / "version_0", runs.parent / "<" / "other")
    ran = lightning.main("explore", str(hostile), str(runs.parent / "<" / "other"), *SMALL)
    assert ran.code == 0, ran.err
    text = Path("page.html").read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert "<script>window.broken" not in text
    assert "script><script>window.broken=1<" in content_of("page.html")["policies"][0]["origin"]


def test_records_of_ones_own(lightning, stays_run):
    ran = lightning.main("explore", str(stays_run), *SMALL)
    assert ran.code == 0, ran.err
    found = content_of("page.html")
    assert (found["truth"], found["grid"], found["actions"]) == (False, None, 9)
    assert not {"values", "features", "courses", "sofa"} & found.keys()
    assert not {"values", "visits", "courses"} & found["policies"][0].keys()
    shares = [row["clinician"] for row in found["policies"][0]["summary"]["actions"]]
    assert shares == pytest.approx(found["recorded_shares"], abs=1e-5)
    assert sum(map(sum, found["states"]["counts"])) == found["records"]
