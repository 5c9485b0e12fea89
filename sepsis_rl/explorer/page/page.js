// -- about -------------------------------------------------------------------------------------

function renderAbout() {
  const facts = [
    [
      "Policies",
      page.policies.map(
        (own) => `${own.name}: ${own.origin}; supported value ${percent(own.supported_value)}`,
      ),
    ],
    [
      "Records",
      [
        `${plural(page.episodes, "training episode")}, ${plural(page.records, "decision")}; ` +
          `${percent(page.survived)} survived. Their supported value is ` +
          `${percent(page.supported_value)}. A dose is supported in a state if these records ` +
          "have it there at least once.",
      ],
    ],
    [
      "Supported value",
      [
        "What dynamics estimated from training and held-out records make of a policy, less a " +
          "price for decisions that are rare in them. It chooses a member of a run, as " +
          "`lightning select` does, and is for choosing: as a claim it is too high by a point " +
          "or so.",
      ],
    ],
  ];
  if (page.truth) {
    facts.push(
      [
        "Patients",
        [
          `Simulated by ${page.environment}. ${plural(page.patients, "patient")} of seed ` +
            `${page.seed} are treated twice, by the environment's clinician and by the policy, ` +
            "with the same first state and the same random number at each step, so differences " +
            `are of the same patients. The first ${page.courses.length} can be followed. A ` +
            "state is what the simulator knows of a patient: the real one knew more.",
        ],
      ],
      [
        "Intervals",
        [
          "95 %, from the differences of patients; where they are shares of decisions, of " +
            "ratios. They say how well the simulator's own answer is known, and nothing of how " +
            "well the simulator knows patients. With several doses and groups, one in twenty " +
            "leaves out 0 by chance.",
        ],
      ],
      [
        "Exact values",
        [
          "Survival from a state is solved from the simulator's tables: under the clinician, " +
            "under the policy, and the best there is. Learning never saw them.",
        ],
      ],
      [
        "Disagreement",
        [
          "1 minus the probability that policy and clinicians can be made to share: 0 if " +
            "they do the same, 100 % if never. States were clustered with the same window's " +
            "doses among their features, so part of the agreement is built in.",
        ],
      ],
      ["Dose levels, features", page.notes],
    );
  } else {
    facts.push(
      [
        "Not known",
        [
          "No environment simulates these patients: no truth, no SOFA, no names. The " +
            "recorded shares stand in for the clinicians' probabilities.",
        ],
      ],
      [
        "Intervals",
        [
          "95 %, over recorded stays, of the difference between the recorded actions and " +
            "those of the policy in the same states.",
        ],
      ],
      [
        "Disagreement",
        ["1 minus the overlap of the policy's probabilities and the recorded shares."],
      ],
    );
  }
  show(
    "about",
    el(
      "div",
      { class: "card long" },
      el("h2", {}, "What this page is made of"),
      el(
        "dl",
        {},
        ...facts.flatMap(([term, texts]) => [
          el("dt", {}, term),
          el("dd", {}, ...texts.map((text) => el("p", {}, text))),
        ]),
      ),
    ),
  );
}

// -- going from view to view -------------------------------------------------------------------

const RENDER = {
  summary: renderSummary,
  states() {
    const found = renderStateList();
    if (!indexOf.has(view.state)) view.state = found.length ? states.id[found[0]] : null;
    renderState();
  },
  patients() {
    const found = renderPatientList();
    if (!found.includes(view.patient)) view.patient = found[0] ?? null;
    renderPatient();
  },
  about: renderAbout,
};
const TABS = Object.keys(RENDER).filter((tab) => page.truth || tab !== "patients");

// Where the reader is stands in the address, so that a view can be passed on and gone back to.
function go(change) {
  const moved = change.tab !== undefined && change.tab !== view.tab;
  const redraw = moved || change.policy !== undefined;
  Object.assign(view, change);
  const item = { states: view.state, patients: view.patient }[view.tab] ?? "";
  const address = `#${view.tab}/${view.policy}/${item}`;
  if (address !== location.hash) history[moved ? "pushState" : "replaceState"](null, "", address);
  if (redraw) render();
  else if (view.tab === "states") renderState();
  else if (view.tab === "patients") renderPatient();
}

function render() {
  byId("origin").textContent = policy().origin;
  byId("policy").value = String(view.policy);
  for (const tab of TABS) {
    const button = byId(`tab-${tab}`);
    button.setAttribute("aria-selected", String(tab === view.tab));
    button.tabIndex = tab === view.tab ? 0 : -1;
    byId(tab).hidden = tab !== view.tab;
  }
  RENDER[view.tab]();
}

function readAddress() {
  const [tab, place, item] = location.hash.slice(1).split("/");
  view.tab = TABS.includes(tab) ? tab : "summary";
  view.policy = Number(place) in page.policies ? Number(place) : 0;
  const known = { states: (id) => indexOf.has(id), patients: (patient) => patient in page.courses }[
    view.tab
  ];
  if (item && known?.(Number(item)))
    Object.assign(
      view,
      view.tab === "states" ? { state: Number(item) } : { patient: Number(item) },
    );
  render();
}

function begin() {
  byId("policy").append(
    ...page.policies.map((own, place) => el("option", { value: place }, own.name)),
  );
  byId("state-order").append(
    ...Object.entries(ORDERS).map(([key, [label]]) => el("option", { value: key }, label)),
  );
  byId("patient-filter").append(
    ...Object.entries(FILTERS).map(([key, [label]]) => el("option", { value: key }, label)),
  );
  if (!page.truth) byId("tab-patients").remove();
  byId("policy").addEventListener("change", (event) =>
    go({ policy: Number(event.target.value), dose: null }),
  );
  byId("state-order").addEventListener("change", renderStateList);
  byId("state-query").addEventListener("input", () => {
    const found = renderStateList();
    if (found.length && !found.includes(indexOf.get(view.state)))
      go({ state: states.id[found[0]], dose: null });
  });
  byId("state-query").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") byId("state-list").focus();
  });
  byId("patient-filter").addEventListener("change", () => {
    const found = renderPatientList();
    go({ patient: found.includes(view.patient) ? view.patient : (found[0] ?? null) });
  });
  for (const tab of TABS) {
    byId(`tab-${tab}`).addEventListener("click", () => go({ tab }));
    byId(`tab-${tab}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: TABS.length - 1 }[event.key];
      if (step === undefined) return;
      const next = TABS[(TABS.indexOf(tab) + step) % TABS.length];
      go({ tab: next });
      byId(`tab-${next}`).focus();
    });
  }
  addEventListener("popstate", readAddress);
  addEventListener("resize", () => {
    if (view.tab === "patients") renderPatient();
  });
  readAddress();
}

begin();
