"""Pages of finished runs, and a browser that opens them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sepsis_rl.explorer.assembly import page_content, render
from sepsis_rl.explorer.shown import read_policies


@pytest.fixture(scope="session")
def content(finished_runs):
    """What a page of CQL, BC and a sweep shows. Not to be changed."""
    runs = finished_runs / "runs"
    return page_content(
        *read_policies([runs / name / "version_0" for name in ("cql", "bc", "sweep")]),
        patients=200,
        seed=0,
    )


@pytest.fixture(scope="session")
def page(content, tmp_path_factory):
    """The page of that."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_bytes(render(content))
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium, which may ask no network for anything."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and its driver are not installed (Debian: chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for word in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-sync", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "window-size=1400,1000"),
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = selenium.Chrome(options, selenium.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def visit(browser):
    """Opens a page; whatever the browser has to complain of fails the test."""

    def visit(path: Path, view: str = "") -> None:
        browser.get("about:blank")
        browser.get(f"{path.as_uri()}{view}")

    yield visit
    assert browser.get_log("browser") == []


@pytest.fixture
def stays_run(lightning, tmp_path):
    """A run on a table of 60 stays with 30 states and 9 actions."""
    rng = np.random.default_rng(0)
    rows = [
        f"{stay},{rng.integers(30)},{rng.integers(9)},{int(step == 2 and stay % 2)}"
        for stay in range(60)
        for step in range(3)
    ]
    header = "episode,observation,action,reward"
    (tmp_path / "stays.csv").write_text("\n".join([header, *rows]))
    sizes = ("--data.n_states=30", "--data.n_actions=9")
    assert lightning("fit", "cql", "--data.path=stays.csv", *sizes).code == 0
    return tmp_path / "runs" / "cql" / "version_0"
