// The list of states, and one of them.

const ORDERS = {
  visits: [page.truth ? "visits, policy" : "records", visits],
  ...(page.truth
    ? {
        clinician: ["visits, clinician", (index) => states.visits[index]],
        sofa: ["SOFA, highest", sofa],
        lowest: ["SOFA, lowest", (index) => -sofa(index)],
        gain: ["gain, largest", gain],
        loss: ["loss, largest", (index) => -gain(index)],
      }
    : {}),
  disagreement: ["disagreement", disagreement],
  number: ["number", (index) => -states.id[index]],
};

const stateList = listBox(
  byId("state-list"),
  (id) => {
    const index = indexOf.get(id);
    const differs =
      policy().choice[index] === favorite(index)
        ? "as clinicians"
        : `differs ${percent(disagreement(index), 0)}`;
    const said = page.truth
      ? [`gain ${signed(100 * gain(index))}`, differs]
      : [differs.replace("clinicians", "most records")];
    return [
      el("b", {}, `State ${id}`),
      el(
        "span",
        { class: "number" },
        page.truth ? `SOFA ${number(sofa(index))}` : plural(recorded(index), "record"),
      ),
      el(
        "span",
        { class: "quiet three" },
        [`visits ${percent(visits(index), 2)}`, ...said].map((text) => el("span", {}, text)),
      ),
    ];
  },
  (id) => go({ state: id, dose: null }),
);

function searchText(index) {
  const parts = [`state ${states.id[index]}`, doseName(policy().choice[index])];
  if (page.truth) parts.push(`SOFA ${number(sofa(index))}`, page.strata[states.stratum[index]]);
  return parts.join(" ").toLowerCase();
}

function renderStateList() {
  const words = byId("state-query")
    .value.toLowerCase()
    .split(",")
    .map((word) => word.trim())
    .filter(Boolean);
  const [, key] = ORDERS[byId("state-order").value];
  const alone = words.length === 1 && /^\d+$/.test(words[0]) && indexOf.has(Number(words[0]));
  const found = alone
    ? [indexOf.get(Number(words[0]))]
    : states.id
        .map((_, index) => index)
        .filter((index) => {
          const text = searchText(index);
          return words.every((word) => text.includes(word));
        });
  const keys = new Map(found.map((index) => [index, key(index)]));
  found.sort((a, b) => keys.get(b) - keys.get(a) || a - b);
  byId("state-count").textContent =
    `${found.length.toLocaleString("en")} of ${plural(states.id.length, "state")}`;
  stateList.fill(found.map((index) => states.id[index]));
  return found;
}

function renderState() {
  const index = indexOf.get(view.state);
  if (index === undefined) return show("state", el("p", { class: "card" }, "No state is found."));
  stateList.select(view.state);
  const own = policy().choice[index];
  const most = favorite(index);
  const who = page.truth ? "Clinicians give" : "The records have";
  const facts = [
    page.truth
      ? `SOFA ${number(sofa(index))} (${number(page.sofa)} in the mean of the clinicians' ` +
        "decisions)"
      : null,
    `${plural(recorded(index), "decision")} recorded here`,
    page.truth
      ? `${percent(visits(index), 2)} of the policy's decisions, ` +
        `${percent(states.visits[index] / 1e6, 2)} of the clinicians'`
      : null,
  ].filter(Boolean);
  show(
    "state",
    el(
      "div",
      { class: "card" },
      el("h2", {}, `State ${view.state}`),
      el("p", {}, facts.join(" · ")),
      el(
        "p",
        {},
        page.grid ? "The policy's dose is " : "The policy takes ",
        el("b", {}, doseName(own)),
        `. ${who} it in ${percent(theirs(index, own), 0)}`,
        own === most
          ? ", more than any other."
          : `, and most often ${doseName(most)} (${percent(theirs(index, most), 0)}).`,
      ),
      page.truth ? valuesOf("Survival from here, exact", (values) => values.state[index]) : null,
    ),
    el("div", { class: "card", id: "grids" }),
    el("div", { class: "card", id: "leads", "aria-live": "polite" }),
    page.features ? features(index) : null,
  );
  renderDose();
}

function valuesOf(title, read) {
  return el(
    "div",
    {},
    el("h3", {}, title),
    bars([
      ["clinician", read(page.values.clinician) / 1e4, "clinician"],
      ["policy", read(policy().values) / 1e4, ""],
      ["optimum", read(page.values.optimum) / 1e4, "optimum"],
    ]),
  );
}

function features(index) {
  const deviation = (value) => `${signed(value, 2)} SD`;
  const written = {
    SD: deviation,
    "log SD": deviation,
    share: (value) => percent(value, 0),
    dose: (value) => number(value, 2),
  };
  const shown = page.features
    .map((feature) => {
      const value = feature.values[index] / 100;
      return { ...feature, value, apart: Math.abs(value - feature.mean) / (feature.spread || 1) };
    })
    .sort((a, b) => b.apart - a.apart);
  return el(
    "div",
    { class: "card long" },
    el("h2", {}, "Its patients"),
    el(
      "p",
      { class: "quiet" },
      "The center of the state (blue) beside all decisions of clinicians: mean (line) and 80 " +
        "% of them (gray). The most unusual come first; what the numbers are is said under " +
        "About.",
    ),
    el(
      "ul",
      { class: "features" },
      ...shown.map((feature) => {
        const text = written[feature.kind](feature.value);
        return el(
          "li",
          {},
          el("span", {}, feature.name, feature.kind === "log SD" ? ", log" : ""),
          strip(feature),
          el("span", { class: "number" }, text),
        );
      }),
    ),
  );
}

function strip({ value, mean, low, high, spread }) {
  const x = (at) => 52 + 48 * Math.min(Math.max((at - mean) / (4 * spread || 1), -1), 1);
  return svg(
    "svg",
    { viewBox: "0 0 104 16", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("rect", {
      x: x(low),
      y: 4,
      width: Math.max(x(high) - x(low), 1),
      height: 8,
      fill: "#d3d9de",
    }),
    svg("line", { x1: x(mean), y1: 1, x2: x(mean), y2: 15, stroke: "#56616b" }),
    svg("circle", { cx: x(value), cy: 8, r: 4, fill: "#0072b2" }),
  );
}
