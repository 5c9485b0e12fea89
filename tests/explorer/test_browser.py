"""The page in a real browser: clicks, keys, search, order, tabs, a phone's width."""

import json
import time

import numpy as np
import pytest

from sepsis_rl.explorer.assembly import page_content, render
from sepsis_rl.explorer.shown import read_policies

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
Select = pytest.importorskip("selenium.webdriver.support.ui").Select


@pytest.fixture
def find(browser):
    return lambda css: browser.find_element(By.CSS_SELECTOR, css)


@pytest.fixture
def texts(browser):
    """Texts of all elements that match, shown or scrolled away."""
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return lambda css: browser.execute_script(script, css)


@pytest.fixture
def active(browser):
    return lambda: browser.switch_to.active_element


def listed(texts):
    return [int(name.split()[1]) for name in texts("#state-list b")]


def chosen(find):
    return find("#state-list [aria-selected=true] b").text


def test_the_summary_stands_in_front(visit, page, find, texts, content):
    visit(page)
    summary = content["policies"][0]["summary"]
    everyone = summary["groups"][0]
    shown = float(find("#summary .figure").text.split()[0].replace("−", "-"))
    assert shown == pytest.approx(100 * everyone["survival"]["difference"], abs=0.051)
    assert "all patients" in texts("#summary tbody th")
    bars = texts("#summary .bars .number")
    exact = [float(value.removesuffix(" %")) for value in bars[:2]]
    assert exact == pytest.approx([100 * value for value in everyone["exact"]], abs=0.051)
    cells = texts("#summary table.grid td")
    expected = [row["difference"] for row in summary["actions"]]
    order = np.arange(25).reshape(5, 5)[::-1].ravel()  # fluid upward
    numbers = [float(cell.strip("*").replace("−", "-")) for cell in cells]
    np.testing.assert_allclose(numbers, 100 * np.array(expected)[order], atol=0.051)


def test_the_warning_stays_in_sight(visit, page, browser, find):
    visit(page, "#states")
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    assert browser.execute_script("return scrollY") > 200
    top = browser.execute_script(
        "return document.querySelector('.warning').getBoundingClientRect().top"
    )
    assert 0 <= top < 100
    assert find(".warning").text == "Research software. Not for clinical use."


def test_tabs_go_by_click_and_by_arrows(visit, page, browser, find, active):
    visit(page)
    find("#tab-states").click()
    assert (find("#states").is_displayed(), find("#summary").is_displayed()) == (True, False)
    find("#tab-states").send_keys(Keys.ARROW_RIGHT)
    assert active().get_attribute("id") == "tab-patients"
    assert find("#patients").is_displayed()
    assert browser.execute_script("return location.hash").startswith("#patients/0/")
    browser.back()
    assert find("#states").is_displayed()
    for _ in range(2):
        active().send_keys(Keys.ARROW_LEFT)
    assert find("#tab-summary").get_attribute("aria-selected") == "true"


def test_a_list_goes_by_arrows(visit, page, find, texts, active):
    visit(page, "#states")
    order = listed(texts)
    assert len(order) == 713
    find("#state-list").send_keys(Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert chosen(find) == find("#state h2").text == f"State {order[1]}"
    assert active().get_attribute("aria-activedescendant") == f"state-list-{order[1]}"
    find("#state-list").send_keys(Keys.END)
    assert chosen(find) == f"State {order[-1]}"
    outline = active().value_of_css_property("outline-style")
    assert outline == "solid"


def test_sorting(visit, page, find, texts, content):
    visit(page, "#states")
    states, own = content["states"], content["policies"][0]
    gain = np.array(own["values"]["state"]) - content["values"]["clinician"]["state"]
    given = np.array(states["clinician"])[np.arange(713), own["choice"]]
    for order, key in {
        "visits": own["visits"],
        "sofa": states["sofa"],
        "gain": gain,
        "loss": -gain,
        "disagreement": -given,
        "number": -np.arange(713),
    }.items():
        Select(find("#state-order")).select_by_value(order)
        found = np.array(key)[listed(texts)]
        assert (np.diff(found) <= 0).all(), order


@pytest.mark.slow
def test_searching(visit, page, find, texts, content, active):
    visit(page, "#states")
    box = find("#state-query")
    box.send_keys("123")
    assert listed(texts) == [123]
    assert find("#state h2").text == "State 123"
    box.clear()
    box.send_keys("sofa ≥ 11")
    severe = [i for i, sofa in enumerate(content["states"]["stratum"]) if sofa == 3]
    assert sorted(listed(texts)) == severe
    assert find("#state-count").text == f"{len(severe)} of 713 states"
    box.clear()
    box.send_keys("vasopressor 0")
    doses = np.array(content["policies"][0]["choice"])
    assert sorted(listed(texts)) == np.flatnonzero(doses % 5 == 0).tolist()
    box.send_keys(", iv fluid 4")
    assert sorted(listed(texts)) == np.flatnonzero(doses == 20).tolist()
    box.send_keys(Keys.ARROW_DOWN)
    assert active().get_attribute("id") == "state-list"
    box.clear()
    box.send_keys("no such thing")
    assert listed(texts) == []


def test_a_state_shows_its_numbers(visit, page, texts, content, find, browser):
    visit(page, "#states/0/40")
    states, own = content["states"], content["policies"][0]
    order = np.arange(25).reshape(5, 5)[::-1].ravel()

    def grid(name):
        return texts(f"[data-grid={name}]")

    counts = np.array(states["counts"][40])[order]
    assert grid("count") == [str(n) if n else "" for n in counts]
    assert grid("q") == [f"{q / 10:.1f}".replace("-", "−") for q in np.array(own["q"][40])[order]]
    clinician = np.array(states["clinician"][40])[order] / 10
    assert [float(text or 0) for text in grid("clinician")] == pytest.approx(clinician, abs=0.51)
    assert grid("policy").count("100") == 1
    flags = "".join(np.array(list(states["admissible"][40]))[order])
    classes = [
        button.get_attribute("class")
        for button in browser.find_elements(By.CSS_SELECTOR, "[data-grid=q]")
    ]
    assert ["inadmissible" in kind for kind in classes] == [flag == "0" for flag in flags]
    assert ["unsupported" in kind for kind in classes] == [
        flag == "1" and n == 0 for flag, n in zip(flags, counts, strict=True)
    ]
    values = texts("#state > .card:first-child .bars .number")
    worth = [content["values"]["clinician"], own["values"], content["values"]["optimum"]]
    shown = [float(value.removesuffix(" %")) for value in values]
    assert shown == pytest.approx([value["state"][40] / 100 for value in worth], abs=0.051)
    assert len(texts(".features li")) == 47
    assert find("#state p").text.startswith(f"SOFA {states['sofa'][40] / 10:.1f}")


def test_a_dose_leads_somewhere(visit, page, find, texts, content, active, browser):
    visit(page, "#states/0/40")
    find("[data-grid=clinician][data-action='7']").click()
    assert find("#leads h2").text == "Where IV fluid 1, vasopressor 2 leads"
    _, *row = content["rows"][content["states"]["row"][40][7]]
    shares = [f"{share / 10:.1f} %" for share in row[1::2]]
    assert texts("#leads .bars .number")[: len(shares)] == shares
    active().send_keys(Keys.ARROW_UP)
    assert active().get_attribute("data-action") == "12"
    active().send_keys(Keys.ARROW_LEFT, Keys.NULL)
    active().send_keys(Keys.ARROW_LEFT)
    active().send_keys(Keys.ARROW_LEFT)  # the edge
    assert active().get_attribute("data-action") == "10"
    assert active().get_attribute("data-grid") == "clinician"
    find("#leads .link").click()
    assert f"/{find('#state h2').text.split()[1]}" in browser.execute_script("return location.hash")


def test_another_policy_without_q(visit, page, find, texts):
    visit(page, "#states/0/40")
    Select(find("#policy")).select_by_visible_text("bc")
    assert find("#origin").text.startswith("BC, run bc/version_0")
    assert texts("[data-grid=q]") == []
    assert "no Q" in find("#grids").text
    assert find("#state h2").text == "State 40"


def test_patients_side_by_side(visit, page, find, texts, content):
    visit(page, "#patients/0/3")
    theirs, ours = content["courses"][3], content["policies"][0]["courses"][3]
    rows = [text.split() for text in texts(".course tbody tr th")]
    steps = (max(len(theirs), len(ours)) + 1) // 2
    assert rows == [[str(4 * step)] for step in range(steps)]
    assert texts(".course .link")[:1] == [str(theirs[0])]
    outcome = {content["survival"]: "survives", content["death"]: "dies"}
    assert f"Clinician: patient {outcome[theirs[-1]]}" in find("#patient").text
    assert f"Policy: patient {outcome[ours[-1]]}" in find("#patient").text
    assert find("#chart svg").is_displayed()
    Select(find("#patient-filter")).select_by_value("policy")
    saved = [
        patient
        for patient, (one, other) in enumerate(
            zip(content["courses"], content["policies"][0]["courses"], strict=True)
        )
        if (outcome[one[-1]], outcome[other[-1]]) == ("dies", "survives")
    ]
    assert [int(name.split()[1]) for name in texts("#patient-list b")] == saved
    find("#patient-list").send_keys(Keys.END)
    assert find("#patient h2").text == f"Patient {saved[-1]}"
    find(".course .link").click()
    assert find("#states").is_displayed()


@pytest.mark.parametrize("view", ["summary", "states", "patients", "about"])
def test_a_phone_never_scrolls_sideways(visit, page, browser, view):
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        visit(page, f"#{view}")
        width = "return document.documentElement.scrollWidth"
        assert browser.execute_script(width) == 400
        warning = "return document.querySelector('.warning').getBoundingClientRect().right"
        assert browser.execute_script(warning) <= 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_is_there_soon_and_asks_for_nothing_else(visit, page, browser):
    visit(page)
    for _ in range(100):
        paints = browser.execute_script("return performance.getEntriesByType('paint')")
        if paints:
            break
        time.sleep(0.05)
    assert paints[0]["startTime"] < 1000 * 5  # 200 ms in quiet; a busy machine takes longer
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_every_control_has_a_name(visit, page, browser):
    for view in ("summary", "states", "patients"):
        visit(page, f"#{view}")
        nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        interactive = ("button", "combobox", "searchbox", "listbox", "tab", "option")
        unnamed = [
            node["role"]["value"]
            for node in nodes
            if not node["ignored"]
            and node["role"]["value"] in interactive
            and not node.get("name", {}).get("value")
        ]
        assert unnamed == []


def test_a_policy_that_samples(visit, content, tmp_path, texts):
    """Given the clinicians' own probabilities, it does what they do."""
    sampled = json.loads(json.dumps(content))
    sampled["policies"][0]["probabilities"] = sampled["states"]["clinician"]
    (tmp_path / "page.html").write_bytes(render(sampled))
    visit(tmp_path / "page.html", "#states/0/40")
    assert texts("[data-grid=policy]") == texts("[data-grid=clinician]")
    differing = [text for text in texts("#state-list .three") if "differs" in text]
    assert differing, differing
    assert {text.rpartition("differs")[2] for text in differing} <= {" 0 %", " 1 %"}


@pytest.mark.parametrize("view", ["#", "#x/y/z", "#states/length/-1", "#patients/9/length"])
def test_an_address_that_leads_nowhere(visit, page, view, find):
    visit(page, view)
    assert find("#origin").text.startswith("CQL, run cql/version_0")
    assert find("[role=tabpanel]:not([hidden]) h2").is_displayed()


def test_a_hostile_name_runs_nothing(visit, content, tmp_path, find, browser):
    hostile = json.loads(json.dumps(content))
    name = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
    hostile["policies"][0] |= {"name": name, "origin": name}
    (tmp_path / "page.html").write_bytes(render(hostile))
    visit(tmp_path / "page.html", "#about")
    assert name in find("#about").text
    assert find("#origin").text == name
    assert Select(find("#policy")).first_selected_option.text == name
    assert browser.execute_script("return window.broken") is None


def test_records_of_ones_own(visit, stays_run, tmp_path, find, texts):
    found = page_content(*read_policies([stays_run]), patients=100, seed=0)
    (tmp_path / "page.html").write_bytes(render(found))
    visit(tmp_path / "page.html")
    assert "No environment simulates these patients" in find("#summary").text
    assert len(texts("[role=tab]")) == 3
    find("#tab-states").click()
    assert len(texts("[data-grid=recorded]")) == 9
    assert texts("[data-grid=clinician]") == []
    state = int(find("#state h2").text.split()[1])
    index = found["states"]["id"].index(state)
    counts = found["states"]["counts"][index]
    assert texts("[data-grid=count]") == [str(n) if n else "" for n in counts]
    find(f"[data-grid=count][data-action='{counts.index(0)}']").click()
    assert "never recorded" in find("#leads").text
    find(f"[data-grid=count][data-action='{int(np.argmax(counts))}']").click()
    assert "By the training records" in find("#leads").text
