"use strict";

// All that is shown stands in the page as JSON; texts reach it as text nodes and never as markup.
const page = JSON.parse(document.getElementById("content").textContent);
const states = page.states;
const indexOf = new Map(states.id.map((id, index) => [id, index]));
const HOURS = 4; // of a step
const view = { tab: "summary", policy: 0, state: null, patient: 0, dose: null };

const byId = (id) => document.getElementById(id);
const policy = () => page.policies[view.policy];

// -- making elements ---------------------------------------------------------------------------

const only = (children) => children.flat().filter((child) => child !== null && child !== undefined);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...only(children));
  return node;
}

const show = (id, ...children) => byId(id).replaceChildren(...only(children));

const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const number = (value, digits = 1) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
const percent = (share, digits = 1) => `${number(100 * share, digits)} %`;
const signed = (value, digits = 1) => {
  const text = number(Math.abs(value), digits);
  return Number(text.replace(/,/g, "")) === 0 ? text : (value > 0 ? "+" : "−") + text;
};
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// -- doses, records and values of a state ------------------------------------------------------

const levels = (action) => [Math.floor(action / page.grid[1]), action % page.grid[1]];
const doseName = (action) => {
  if (!page.grid) return `action ${action}`;
  const [fluid, vasopressor] = levels(action);
  return `IV fluid ${fluid}, vasopressor ${vasopressor}`;
};
const given = (index, action, own = policy()) =>
  own.probabilities ? own.probabilities[index][action] / 1000 : Number(own.choice[index] === action);
const recorded = (index) => states.counts[index].reduce((sum, count) => sum + count, 0);
const share = (index, action) => states.counts[index][action] / Math.max(recorded(index), 1);
const theirs = (index, action) => page.truth ? states.clinician[index][action] / 1000 : share(index, action);
const actions = [...Array(page.actions).keys()];
const admissible = (index, action) => !page.truth || states.admissible[index][action] === "1";
const supported = (index, action) => states.counts[index][action] > 0;
const favorite = (index) => actions.reduce((best, action) => theirs(index, action) > theirs(index, best) ? action : best, 0);
const disagreement = (index) => 1 - actions.reduce((sum, action) => sum + Math.min(given(index, action), theirs(index, action)), 0);
const sofa = (index) => states.sofa[index] / 10;
const gain = (index) => (policy().values.state[index] - page.values.clinician.state[index]) / 1e4;
const visits = (index) => (page.truth ? policy().visits : states.visits)[index] / 1e6;

function stateName(id) {
  if (id === page.survival) return "survives, end";
  if (id === page.death) return "dies, end";
  return `state ${id}`;
}

// -- lists that arrows move through ------------------------------------------------------------

// A listbox keeps the focus and names the chosen option (WAI-ARIA's pattern).
function listBox(list, describe, choose) {
  let items = [];
  let chosen = null;
  const optionId = (item) => `${list.id}-${item}`;
  function mark(scroll) {
    for (const option of list.querySelectorAll("[aria-selected=true]")) option.setAttribute("aria-selected", "false");
    const option = byId(optionId(chosen));
    if (option === null) return list.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", option.id);
    // Only the list scrolls, never the page around it.
    const [above, below] = [option.offsetTop - list.offsetTop, option.offsetTop - list.offsetTop + option.offsetHeight];
    if (scroll && above < list.scrollTop) list.scrollTop = above;
    if (scroll && below > list.scrollTop + list.clientHeight) list.scrollTop = below - list.clientHeight;
  }
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || items.length === 0) return;
    event.preventDefault();
    const place = Math.min(Math.max(items.indexOf(chosen) + steps[event.key], 0), items.length - 1);
    choose(items[place]);
  });
  return {
    fill(given) {
      items = given;
      list.replaceChildren(...items.map((item) =>
        el("li", { role: "option", id: optionId(item), "aria-selected": "false", onclick: () => choose(item) }, ...describe(item))));
      mark(true);
    },
    select(item) { chosen = item; mark(true); },
  };
}

// -- small pictures ----------------------------------------------------------------------------

function bars(rows) {
  const shown = rows.filter(Boolean);
  return el("div", { class: "bars" }, ...shown.flatMap(([label, value, kind, text]) => [
    el("span", {}, label),
    el("span", { class: "track", "aria-hidden": "true" }, el("span", { class: kind, style: `width: ${100 * value}%` })),
    el("span", { class: "number" }, text ?? percent(value)),
  ]));
}

function whisker(value, interval, limit) {
  const [width, height] = [144, 20];
  const x = (at) => width / 2 + (width / 2 - 4) * Math.min(Math.max(at / limit, -1), 1);
  const line = (from, to, color, thickness) => svg("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], stroke: color, "stroke-width": thickness });
  return svg("svg", { class: "whisker", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    line([width / 2, 0], [width / 2, height], "#98a2ab", 1),
    interval ? line([x(interval[0]), 10], [x(interval[1]), 10], "#0072b2", 2.5) : null,
    svg("circle", { cx: x(value), cy: 10, r: 4, fill: "#0072b2" }));
}

const widest = (rows) => Math.max(1e-9, ...rows.flatMap((row) => [row.difference, ...(row.interval ?? [])]).map(Math.abs));
const intervalText = (row, factor, digits) => row.interval
  ? `${signed(factor * row.difference, digits)} (${signed(factor * row.interval[0], digits)}, ${signed(factor * row.interval[1], digits)})`
  : `${signed(factor * row.difference, digits)} (too few for an interval)`;

const spanText = (row, factor) => `95 % interval ${signed(factor * row.interval[0])} to ${signed(factor * row.interval[1])}`;

function verdict(row, more, less) {
  if (!row.interval) return "too few";
  if (row.interval[0] > 0) return more;
  if (row.interval[1] < 0) return less;
  return "not told apart";
}

// The roles stay where a phone's style shows rows as blocks.
function table(head, rows) {
  return el("div", { class: "wide" }, el("table", { role: "table" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head.map((cell) => el("th", { role: "columnheader", scope: "col", class: cell.startsWith("#") ? "number" : null }, cell.replace("#", ""))))),
    el("tbody", { role: "rowgroup" }, ...rows.map((row) => el("tr", { role: "row" }, ...row.map((cell, column) =>
      column === 0 ? el("th", { role: "rowheader", scope: "row", "data-label": head[0] }, cell) : el("td", { role: "cell", class: head[column].startsWith("#") ? "number" : null, "data-label": head[column].replace("#", "") }, cell)))))));
}

// -- summary -----------------------------------------------------------------------------------

function renderSummary() {
  const summary = policy().summary;
  show("summary", page.truth ? headline(summary) : recordsHeadline(), doses(summary), page.policies.length > 1 ? sideBySide() : null);
}

function headline(summary) {
  const all = summary.groups[0];
  const colored = verdict(all.survival, "gain", "loss");
  const optimum = page.values.optimum.start;
  const card = (title, figure, unit, text, kind = "") => el("div", { class: "card" },
    el("h3", {}, title), el("div", { class: `figure ${kind}` }, figure, el("small", {}, ` ${unit}`)), el("p", { class: "quiet" }, text));
  const limit = widest(summary.groups.map((group) => group.survival));
  const rows = summary.groups.map((group) => [
    group.name,
    percent(group.share, 0),
    percent(group.exact[0]), percent(group.exact[1]),
    whisker(group.survival.difference, group.survival.interval, limit),
    intervalText(group.survival, 100, 1),
    el("span", { class: verdict(group.survival, "gain", "loss") }, verdict(group.survival, "gain", "loss")),
    `${group.only_policy.toLocaleString("en")} / ${group.only_clinician.toLocaleString("en")}`,
  ]);
  return [
    el("div", { class: "cards" },
      card("Survival, against clinicians", signed(100 * all.survival.difference), "points",
        `${spanText(all.survival, 100)}, from ${plural(page.patients, "simulated patient")} that both treat`, colored),
      el("div", { class: "card" }, el("h3", {}, "90-day survival, exact"), bars([
        ["clinician", all.exact[0], "clinician"], ["policy", all.exact[1], ""], ["optimum", optimum, "optimum"]]),
        el("p", { class: "quiet" }, "solved from the simulator's own tables")),
      card("Hours on vasopressors", signed(all.vasopressor_hours.difference), "h a patient",
        `${spanText(all.vasopressor_hours, 1)}; ${number(all.vasopressor_hours.clinician)} h with clinicians, ${number(all.vasopressor_hours.policy)} h with the policy: 4-hour steps with a level above 0`),
      card("Hours of treatment", signed(all.hours.difference), "h a patient",
        `${spanText(all.hours, 1)}; ${number(all.hours.clinician)} h and ${number(all.hours.policy)} h. Who lives longer is treated longer`)),
    el("div", { class: "card" },
      el("h2", {}, "Who gains, who loses"),
      el("p", { class: "quiet" }, "By the SOFA score of a patient's first state (5–8 is 5 to below 8). The same patients meet the same draws under clinician and policy; what is shown is the policy minus the clinician, with a 95 % interval."),
      table(["first state", "#patients", "#clinician, exact", "#policy, exact", "difference", "#points (95 %)", "", "#saved only by policy / clinician"], rows)),
  ];
}

function hours(groups) {
  return el("div", { class: "card" },
    el("h2", {}, "Hours on vasopressors"),
    el("p", { class: "quiet" }, "Mean of a patient's 4-hour steps with a vasopressor level above 0, by the SOFA score of the first state."),
    table(["first state", "#clinician, h", "#policy, h", "difference", "#hours (95 %)"], hourRows(groups)));
}

function sideBySide() {
  const name = (own, place) => el("button", { class: "link", onclick: () => go({ policy: place, dose: null }) }, own.name);
  const card = (about, ...given) => el("div", { class: "card" }, el("h2", {}, "The policies side by side"), el("p", { class: "quiet" }, about), table(...given));
  if (!page.truth) {
    return card("Supported value, from records.", ["policy", "#supported value"],
      page.policies.map((own, place) => [name(own, place), percent(own.supported_value)]));
  }
  const all = page.policies.map((own) => own.summary.groups[0]);
  const limit = widest(all.map((group) => group.survival));
  return card("All patients; each policy meets the same ones. Differences are to the clinician.",
    ["policy", "#survival, exact", "difference", "#points (95 %)", "#vasopressors, h", "#supported value"],
    page.policies.map((own, place) => [
      name(own, place), percent(all[place].exact[1]), whisker(all[place].survival.difference, all[place].survival.interval, limit),
      intervalText(all[place].survival, 100, 1), number(all[place].vasopressor_hours.policy), percent(own.supported_value)]));
}

function hourRows(groups) {
  const limit = widest(groups.map((group) => group.vasopressor_hours));
  return groups.map(({ name, vasopressor_hours: hours }) => [
    name, number(hours.clinician), number(hours.policy),
    whisker(hours.difference, hours.interval, limit), intervalText(hours, 1, 1)]);
}

function recordsHeadline() {
  return [
    el("div", { class: "card" },
      el("h2", {}, "Judged by records alone"),
      el("p", {}, "No environment simulates these patients. So there is no exact survival, no simulated course and no table of the clinicians' probabilities here: the recorded shares stand in for it. States have no SOFA score and no features, and actions have numbers, as nothing says what they are. Stays of real patients are not put on a page that may be passed on."),
      el("div", { style: "max-width: 48rem" }, bars([
        ["recorded stays that survived", page.survived, "clinician"],
        ["supported value, recorded decisions", page.supported_value, "clinician"],
        ["supported value, policy", policy().supported_value, ""]])),
      el("p", { class: "quiet" }, "The supported value is what dynamics estimated from all records make of a policy, less a price for decisions that are rare in them. It is for choosing, and as a claim too high by a point or so.")),
  ];
}

function doses(summary) {
  const head = (what) => [what, "#recorded", `#${page.truth ? "clinician" : "records"}`, "#policy", "difference", "#points (95 %)"];
  const rows = (label, found, own) => {
    const limit = widest(found);
    return found.map((row, level) => [
      label(level), percent(own[level]), percent(row.clinician), percent(row.policy),
      whisker(row.difference, row.interval, limit), intervalText(row, 100, 1)]);
  };
  const note = page.truth
    ? "Shares of all 4-hour decisions: of the training records, and of the simulated patients under clinician and policy. Differences are the policy's minus the clinician's, with 95 % intervals from the same patients."
    : "Shares of the training decisions, and of what the policy would do in the same states. Differences are the policy's minus the recorded, with 95 % intervals over stays.";
  const drop = (cells) => page.truth ? cells : [cells[0], ...cells.slice(2)];
  if (!page.grid) {
    const order = actions.toSorted((a, b) => Math.abs(summary.actions[b].difference) - Math.abs(summary.actions[a].difference));
    return el("div", { class: "card long" }, el("h2", {}, "Actions, more or less often than recorded"), el("p", { class: "quiet" }, note),
      table(drop(head("action")), order.map((action) => drop(rows(String, summary.actions, page.recorded_shares)[action]))));
  }
  const meaning = ["0, none", "1, lowest quarter", "2", "3", "4, highest quarter"];
  const label = (drug) => (level) => page.grid[drug] === 5 ? meaning[level] : String(level);
  const marginal = (drug) => [...Array(page.grid[drug]).keys()].map((level) =>
    actions.filter((action) => levels(action)[drug] === level).reduce((sum, action) => sum + page.recorded_shares[action], 0));
  const drugs = [["IV fluid level", 0, "iv_fluid"], ["vasopressor level", 1, "vasopressor"]];
  return el("div", {}, el("div", { class: "card long" }, el("h2", {}, "Doses, more or less often than clinicians give them"), el("p", { class: "quiet" }, note),
    el("div", { class: "two" }, ...drugs.map(([name, drug, key]) => table(head(name), rows(label(drug), summary[key], marginal(drug)))))),
    el("div", { class: "two" }, el("div", { class: "card" }, differenceGrid(summary.actions)), hours(summary.groups)));
}

function differenceGrid(found) {
  const limit = widest(found);
  const color = (row) => row.difference > 0 ? `rgba(0, 114, 178, ${0.7 * row.difference / limit})` : `rgba(213, 94, 0, ${-0.7 * row.difference / limit})`;
  const clear = (row) => row.interval && (row.interval[0] > 0 || row.interval[1] < 0);
  const cell = (action) => el("td", {
    style: `background: ${color(found[action])}; padding: .3rem 0; border-radius: 3px`,
    title: `${doseName(action)}: ${intervalText(found[action], 100, 1)} points`,
  }, signed(100 * found[action].difference) + (clear(found[action]) ? "*" : ""));
  return el("div", {},
    el("h2", {}, "Both drugs at once"),
    el("p", { class: "quiet" }, "Policy minus clinician, in points of all decisions. Blue with + is given more often, orange with − less often; * where the 95 % interval leaves out 0."),
    gridTable(cell, "difference of shares by dose"));
}

// -- states ------------------------------------------------------------------------------------

const ORDERS = {
  visits: [page.truth ? "visits, policy" : "records", visits],
  ...(page.truth ? {
    clinician: ["visits, clinician", (index) => states.visits[index]],
    sofa: ["SOFA, highest", sofa],
    lowest: ["SOFA, lowest", (index) => -sofa(index)],
    gain: ["gain, largest", gain],
    loss: ["loss, largest", (index) => -gain(index)],
  } : {}),
  disagreement: ["disagreement", disagreement],
  number: ["number", (index) => -states.id[index]],
};

const stateList = listBox(byId("state-list"), (id) => {
  const index = indexOf.get(id);
  const differs = policy().choice[index] === favorite(index) ? "as clinicians" : `differs ${percent(disagreement(index), 0)}`;
  const said = page.truth ? [`gain ${signed(100 * gain(index))}`, differs] : [differs.replace("clinicians", "most records")];
  return [
    el("b", {}, `State ${id}`),
    el("span", { class: "number" }, page.truth ? `SOFA ${number(sofa(index))}` : plural(recorded(index), "record")),
    el("span", { class: "quiet three" }, [`visits ${percent(visits(index), 2)}`, ...said].map((text) => el("span", {}, text))),
  ];
}, (id) => go({ state: id, dose: null }));

function searchText(index) {
  const parts = [`state ${states.id[index]}`, doseName(policy().choice[index])];
  if (page.truth) parts.push(`SOFA ${number(sofa(index))}`, page.strata[states.stratum[index]]);
  return parts.join(" ").toLowerCase();
}

function renderStateList() {
  const words = byId("state-query").value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
  const [, key] = ORDERS[byId("state-order").value];
  const alone = words.length === 1 && /^\d+$/.test(words[0]) && indexOf.has(Number(words[0]));
  const found = alone ? [indexOf.get(Number(words[0]))] : states.id.map((_, index) => index)
    .filter((index) => { const text = searchText(index); return words.every((word) => text.includes(word)); });
  const keys = new Map(found.map((index) => [index, key(index)]));
  found.sort((a, b) => keys.get(b) - keys.get(a) || a - b);
  byId("state-count").textContent = `${found.length.toLocaleString("en")} of ${plural(states.id.length, "state")}`;
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
    page.truth ? `SOFA ${number(sofa(index))} (${number(page.sofa)} in the mean of the clinicians' decisions)` : null,
    `${plural(recorded(index), "decision")} recorded here`,
    page.truth ? `${percent(visits(index), 2)} of the policy's decisions, ${percent(states.visits[index] / 1e6, 2)} of the clinicians'` : null,
  ].filter(Boolean);
  show("state", 
    el("div", { class: "card" },
      el("h2", {}, `State ${view.state}`), el("p", {}, facts.join(" · ")),
      el("p", {}, page.grid ? "The policy's dose is " : "The policy takes ", el("b", {}, doseName(own)), `. ${who} it in ${percent(theirs(index, own), 0)}`,
        own === most ? ", more than any other." : `, and most often ${doseName(most)} (${percent(theirs(index, most), 0)}).`),
      page.truth ? valuesOf("Survival from here, exact", (values) => values.state[index]) : null),
    el("div", { class: "card", id: "grids" }),
    el("div", { class: "card", id: "leads", "aria-live": "polite" }),
    page.features ? features(index) : null);
  renderDose();
}

function valuesOf(title, read) {
  return el("div", {}, el("h3", {}, title), bars([
    ["clinician", read(page.values.clinician) / 1e4, "clinician"],
    ["policy", read(policy().values) / 1e4, ""],
    ["optimum", read(page.values.optimum) / 1e4, "optimum"]]));
}

// Fluid upward and vasopressor to the right; actions that are no doses go from left to right.
function gridTable(cell, label) {
  const columns = page.grid ? page.grid[1] : Math.ceil(Math.sqrt(page.actions));
  const rows = Math.ceil(page.actions / columns);
  const order = [...Array(rows).keys()];
  if (page.grid) order.reverse();
  const heads = [...Array(columns).keys()];
  return el("div", {}, el("table", { class: "grid", "aria-label": label },
    el("tbody", {}, ...order.map((row) => el("tr", {}, el("th", { scope: "row" }, String(page.grid ? row : row * columns)),
      ...heads.map((column) => row * columns + column < page.actions ? cell(row * columns + column) : el("td"))))),
    page.grid ? el("tfoot", {}, el("tr", {}, el("th"), ...heads.map((column) => el("th", { scope: "col" }, String(column))))) : null),
    el("p", { class: "axis" }, page.grid ? "IV fluid ↑  vasopressor →" : "action, from left to right"));
}

function doseGrid(name, title, about, index, text, shade) {
  const chosen = view.dose ?? policy().choice[index];
  const cell = (action) => {
    const open = admissible(index, action);
    const kind = [open ? null : "inadmissible", open && !supported(index, action) ? "unsupported" : null, policy().choice[index] === action ? "choice" : null];
    const marks = [open ? null : "inadmissible", supported(index, action) ? null : "never recorded", policy().choice[index] === action ? "the policy's choice" : null];
    const said = [`${doseName(action)}: ${title} ${text(action) || "0"}`, ...marks].filter(Boolean).join(", ");
    const plain = open && supported(index, action);
    return el("td", {}, el("button", {
      class: kind.filter(Boolean).join(" "), "data-grid": name, "data-action": action, title: said, "aria-label": said,
      "aria-pressed": String(action === chosen), tabindex: action === chosen ? "0" : "-1",
      style: plain ? `background: rgba(0, 114, 178, ${(0.7 * shade(action)).toFixed(3)})` : null,
    }, text(action)));
  };
  return el("div", {}, el("h3", {}, title), el("p", { class: "quiet" }, about), gridTable(cell, title));
}

function renderDose() {
  const index = indexOf.get(view.state);
  const rounded = (value) => value < 0.005 ? "" : String(Math.round(100 * value));
  const grids = [];
  if (page.truth) grids.push(doseGrid("clinician", "Clinicians", "probability, %", index, (a) => rounded(theirs(index, a)), (a) => theirs(index, a)));
  grids.push(doseGrid("recorded", "Recorded", "share of records, %", index, (a) => rounded(share(index, a)), (a) => share(index, a)));
  grids.push(doseGrid("policy", "Policy", "probability, %", index, (a) => rounded(given(index, a)), (a) => given(index, a)));
  if (policy().q) {
    const q = policy().q[index];
    const open = actions.filter((a) => admissible(index, a) && supported(index, a)).map((a) => q[a]);
    const [low, high] = [Math.min(...open), Math.max(...open)];
    grids.push(doseGrid("q", "Q", "the network's value × 100", index, (a) => number(q[a] / 10, 1), (a) => (q[a] - low) / Math.max(high - low, 1)));
  }
  const most = Math.log1p(Math.max(...states.counts[index]));
  grids.push(doseGrid("count", "Records", "number of decisions here", index, (a) => states.counts[index][a] ? String(states.counts[index][a]) : "", (a) => Math.log1p(states.counts[index][a]) / Math.max(most, 1)));
  const mark = (kind, text) => el("span", {}, el("i", { class: kind }), text);
  show("grids", 
    el("h2", {}, page.grid ? "Doses" : "Actions"), el("div", { class: "grids" }, ...grids),
    el("div", { class: "legend" }, mark("choice", "the policy's choice"), mark("chosen", "shown below: click, or arrows"),
      page.truth ? mark("inadmissible", "inadmissible") : null, mark("unsupported", "not supported: never recorded here")),
    policy().q ? null : el("p", { class: "quiet" }, "Behavior cloning has no Q: its scores are no values."));
  renderLeads(index);
}

function renderLeads(index) {
  const action = view.dose ?? policy().choice[index];
  const row = states.row[index][action];
  const parts = [el("h2", {}, `Where ${doseName(action)} leads`)];
  if (row < 0) {
    parts.push(el("p", {}, "It was never recorded in this state, so nothing is known of what would follow."));
  } else {
    const [others, ...listed] = page.rows[row];
    const pairs = listed.filter((_, place) => place % 2 === 0).map((id, place) => [id, listed[2 * place + 1] / 1000]);
    const rest = 1 - pairs.reduce((sum, [, part]) => sum + part, 0);
    const label = (id) => indexOf.has(id)
      ? el("button", { class: "link", onclick: () => go({ state: id, dose: null }) }, `state ${id}${page.truth ? `, SOFA ${number(sofa(indexOf.get(id)))}` : ""}`)
      : stateName(id);
    const source = page.truth ? "After 4 hours, by the environment's own table." : "By the training records.";
    parts.push(
      el("p", { class: "quiet" }, source, admissible(index, action) ? "" : " An inadmissible dose has the mean of the admissible ones.",
        supported(index, action) ? "" : " The training records never have it here."),
      el("div", { class: "two narrow" },
        bars([...pairs.map(([id, part]) => [label(id), part, id === page.death || id === page.survival ? "end" : ""]),
          others ? [`${plural(others, "other state")}`, Math.max(rest, 0), ""] : null]),
        page.truth ? valuesOf("Survival if it is given once, and then as …", (values) => values.row[row]) : null));
  }
  show("leads", parts);
}

byId("state").addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (button) chooseDose(button, Number(button.dataset.action));
});
byId("state").addEventListener("keydown", (event) => {
  const button = event.target.closest("[data-action]");
  const columns = page.grid ? page.grid[1] : Math.ceil(Math.sqrt(page.actions));
  const up = page.grid ? columns : -columns;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: up, ArrowDown: -up }[event.key];
  if (!button || step === undefined) return;
  event.preventDefault();
  const action = Number(button.dataset.action);
  const sideways = Math.abs(step) === 1;
  const sameRow = Math.floor((action + step) / columns) === Math.floor(action / columns);
  if (action + step >= 0 && action + step < page.actions && (!sideways || sameRow)) chooseDose(button, action + step);
});

function chooseDose(button, action) {
  view.dose = action;
  renderDose();
  document.querySelector(`[data-grid="${button.dataset.grid}"][data-action="${action}"]`).focus();
}

function features(index) {
  const units = { SD: " SD", "log SD": " SD", share: " %", dose: "" };
  const shown = page.features.map((feature) => {
    const value = feature.values[index] / 100;
    return { ...feature, value, apart: Math.abs(value - feature.mean) / (feature.spread || 1) };
  }).sort((a, b) => b.apart - a.apart);
  return el("div", { class: "card long" },
    el("h2", {}, "Its patients"),
    el("p", { class: "quiet" }, "The center of the state (blue) beside all decisions of clinicians: mean (line) and 80 % of them (gray). The most unusual come first; what the numbers are is said under About."),
    el("ul", { class: "features" }, ...shown.map((feature) => {
      const factor = feature.kind === "share" ? 100 : 1;
      const text = `${feature.kind.endsWith("SD") ? signed(feature.value, 2) : number(factor * feature.value, feature.kind === "share" ? 0 : 2)}${units[feature.kind]}`;
      return el("li", {}, el("span", {}, feature.name, feature.kind === "log SD" ? ", log" : ""), strip(feature), el("span", { class: "number" }, text));
    })));
}

function strip({ value, mean, low, high, spread }) {
  const x = (at) => 52 + 48 * Math.min(Math.max((at - mean) / (4 * spread || 1), -1), 1);
  return svg("svg", { viewBox: "0 0 104 16", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("rect", { x: x(low), y: 4, width: Math.max(x(high) - x(low), 1), height: 8, fill: "#d3d9de" }),
    svg("line", { x1: x(mean), y1: 1, x2: x(mean), y2: 15, stroke: "#56616b" }),
    svg("circle", { cx: x(value), cy: 8, r: 4, fill: "#0072b2" }));
}

// -- patients ----------------------------------------------------------------------------------

function course(woven) {
  const end = woven[woven.length - 1];
  const found = { states: woven.filter((_, place) => place % 2 === 0), doses: woven.filter((_, place) => place % 2 === 1) };
  found.outcome = { [page.survival]: "survives", [page.death]: "dies" }[end] ?? "is still treated";
  found.hours = HOURS * found.doses.length;
  found.pressed = HOURS * found.doses.filter((action) => levels(action)[1] > 0).length;
  return found;
}

const both = (patient) => [course(page.courses[patient]), course(policy().courses[patient])];
const outcomes = (patient) => both(patient).map(({ outcome }) => outcome).join("/");
const FILTERS = {
  all: ["all patients", () => true],
  differs: ["different outcomes", (patient) => new Set(outcomes(patient).split("/")).size > 1],
  policy: ["only the policy saves", (patient) => outcomes(patient) === "dies/survives"],
  clinician: ["only the clinician saves", (patient) => outcomes(patient) === "survives/dies"],
  survive: ["both survive", (patient) => outcomes(patient) === "survives/survives"],
  die: ["both die", (patient) => outcomes(patient) === "dies/dies"],
};

const patientList = listBox(byId("patient-list"), (patient) => {
  const [clinician, own] = both(patient);
  return [
    el("b", {}, `Patient ${patient}`),
    el("span", { class: "number" }, `SOFA ${number(sofa(indexOf.get(clinician.states[0])))}`),
    el("span", { class: "quiet" }, `clinician ${clinician.outcome} · policy ${own.outcome}`),
  ];
}, (patient) => go({ patient }));

function renderPatientList() {
  const keep = FILTERS[byId("patient-filter").value][1];
  const found = page.courses.map((_, patient) => patient).filter(keep);
  byId("patient-count").textContent = `${found.length.toLocaleString("en")} of ${plural(page.courses.length, "patient")}`;
  patientList.fill(found);
  return found;
}

function renderPatient() {
  if (view.patient === null) return show("patient", el("p", { class: "card" }, "No patient is found."));
  patientList.select(view.patient);
  const [clinician, own] = both(view.patient);
  const apart = clinician.doses.findIndex((action, step) => action !== own.doses[step]);
  const about = (name, { outcome, hours, pressed }) => el("p", {}, el("b", {}, `${name} ${outcome}`), ` after ${hours} h, ${pressed} h of them on vasopressors.`);
  const picture = el("div", { id: "chart" });
  show("patient", 
    el("div", { class: "card" },
      el("h2", {}, `Patient ${view.patient}`),
      el("div", { class: "two" }, about("Clinician: patient", clinician), about("Policy: patient", own)),
      el("p", { class: "quiet" }, apart < 0 ? "Every dose is the same." : `Same start and same draws; the doses first differ at ${HOURS * apart} h.`,
        " A draw decides between what may follow a dose; once the states differ, the same draw means something else."),
      picture),
    el("div", { class: "card long" }, el("h2", {}, "Dose by dose"), el("p", { class: "quiet" }, "IV and vaso are the levels of IV fluid and of vasopressor; rows in which the doses differ are shaded."), courseTable(clinician, own)));
  drawCourse(picture, clinician, own);
}

function courseTable(clinician, own) {
  const steps = Math.max(clinician.states.length, own.states.length);
  const cells = ({ states: visited, doses: taken }, step, kind) => {
    const id = visited[step];
    if (id === undefined) return [el("td", { class: kind }), el("td"), el("td"), el("td")];
    if (!indexOf.has(id)) return [el("td", { class: kind, colspan: 4 }, el("b", {}, stateName(id)))];
    const dose = taken[step] === undefined ? ["", ""] : levels(taken[step]).map(String);
    return [
      el("td", { class: kind }, el("button", { class: "link", onclick: () => go({ tab: "states", state: id, dose: null }) }, String(id))),
      el("td", { class: "number" }, number(sofa(indexOf.get(id)))), el("td", { class: "number" }, dose[0]), el("td", { class: "number" }, dose[1])];
  };
  const head = (kind) => [el("th", { scope: "col", class: kind }, "state"), ...["SOFA", "IV", "vaso"].map((text) => el("th", { scope: "col", class: "number" }, text))];
  return el("div", { class: "scroll" }, el("table", { class: "course" },
    el("thead", {}, el("tr", {}, el("th"), el("th", { scope: "colgroup", colspan: 4 }, "Clinician"), el("th", { scope: "colgroup", colspan: 4, class: "ours" }, "Policy")),
      el("tr", {}, el("th", { scope: "col" }, "hour"), ...head(null), ...head("ours"))),
    el("tbody", {}, ...[...Array(steps).keys()].map((step) =>
      el("tr", { class: clinician.doses[step] === own.doses[step] ? null : "apart" }, el("th", { scope: "row" }, String(HOURS * step)),
        ...cells(clinician, step, null), ...cells(own, step, "ours"))))));
}

function drawCourse(place, clinician, own) {
  const width = Math.max(place.clientWidth, 280);
  const [left, right, top, plot, band] = [78, 66, 14, 170, 18];
  const steps = Math.max(clinician.doses.length, own.doses.length);
  const x = (step) => left + (width - left - right) * step / steps;
  const lines = [["Clinician", clinician, "#1b2126", "6 4"], ["Policy", own, "#0072b2", null]];
  const scores = lines.map(([, { states: visited }]) => visited.filter((id) => indexOf.has(id)).map((id) => sofa(indexOf.get(id))));
  const high = Math.ceil(Math.max(...scores.flat()) + 0.5);
  const y = (score) => top + plot * (1 - score / high);
  const ticks = [...new Set([0, 5, 8, 11, high].filter((score) => score <= high && (score === high || high - score > 1)))];
  const text = (at, height, anchor, said, more = {}) => svg("text", { x: at, y: height, "text-anchor": anchor, ...more }, said);
  const parts = ticks.flatMap((score) => [
    svg("line", { x1: left, x2: width - right, y1: y(score), y2: y(score), stroke: "#e3e7ea" }), text(left - 6, y(score) + 4, "end", String(score))]);
  parts.push(text(4, top + 4, "start", "SOFA"));
  lines.forEach(([name, { outcome }, color, dashes], which) => {
    const points = scores[which].map((score, step) => [x(step), y(score)]);
    parts.push(svg("polyline", { points: points.map((point) => point.join(",")).join(" "), fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dashes }));
    parts.push(...points.map(([cx, cy]) => which ? svg("rect", { x: cx - 3, y: cy - 3, width: 6, height: 6, fill: color }) : svg("circle", { cx, cy, r: 4, fill: "#fff", stroke: color, "stroke-width": 1.6 })));
    const [endX, endY] = points[points.length - 1];
    const other = scores[1 - which].length === scores[which].length ? y(scores[1 - which].at(-1)) : Infinity;
    const close = Math.abs(other - endY) < 14 ? (which ? 9 : -5) : 4;
    parts.push(text(endX + 8, endY + close, "start", outcome === "survives" ? "survives" : `✕ ${outcome}`, { style: `fill: ${color}; font-weight: 650` }));
  });
  let height = top + plot + 16;
  const stride = Math.ceil(steps / Math.max(1, Math.floor((width - left - right) / 34)));
  for (let step = 0; step <= steps; step += stride) parts.push(text(x(step), height, "middle", String(HOURS * step)));
  parts.push(text(width - right + 14, height, "start", "hours"));
  ["IV fluid", "vasopressor"].forEach((drug, which) => {
    height += 10;
    parts.push(text(4, height + 10, "start", drug, { style: "font-weight: 650" }));
    height += 15;
    for (const [name, { doses: taken }, color] of lines) {
      parts.push(text(left - 6, height + 13, "end", name));
      taken.forEach((action, step) => {
        const level = levels(action)[which];
        const cell = x(step + 1) - x(step);
        parts.push(svg("rect", { x: x(step), y: height, width: Math.max(cell - 1, 1), height: band - 2, fill: color, "fill-opacity": level ? 0.12 + 0.16 * level : 0.04 }));
        if (cell > 9) parts.push(text(x(step) + cell / 2 - 0.5, height + 12, "middle", String(level), { style: `fill: ${level > 2 ? "#fff" : "#1b2126"}` }));
      });
      height += band;
    }
  });
  place.replaceChildren(
    el("div", { class: "legend" }, el("span", {}, "dashed, circles: clinician"), el("span", {}, "solid, squares: policy")),
    svg("svg", { width, height: height + 6, viewBox: `0 0 ${width} ${height + 6}`, role: "img", "aria-label": "SOFA and doses over time under clinician and policy; the table below has the numbers" }, ...parts));
}

// -- about -------------------------------------------------------------------------------------

function renderAbout() {
  const facts = [
    ["Policies", page.policies.map((own) => `${own.name}: ${own.origin}; supported value ${percent(own.supported_value)}`)],
    ["Records", [`${plural(page.episodes, "training episode")}, ${plural(page.records, "decision")}; ${percent(page.survived)} survived. Their supported value is ${percent(page.supported_value)}. A dose is supported in a state if these records have it there at least once.`]],
    ["Supported value", ["What dynamics estimated from training and held-out records make of a policy, less a price for decisions that are rare in them. It chooses a member of a run, as `lightning select` does, and is for choosing: as a claim it is too high by a point or so."]],
  ];
  if (page.truth) {
    facts.push(
      ["Patients", [`Simulated by ${page.environment}. ${plural(page.patients, "patient")} of seed ${page.seed} are treated twice, by the environment's clinician and by the policy, with the same first state and the same random number at each step, so differences are of the same patients. The first ${page.courses.length} can be followed. A state is what the simulator knows of a patient: the real one knew more.`]],
      ["Intervals", ["95 %, from the differences of patients; where they are shares of decisions, of ratios. They say how well the simulator's own answer is known, and nothing of how well the simulator knows patients. With several doses and groups, one in twenty leaves out 0 by chance."]],
      ["Exact values", ["Survival from a state is solved from the simulator's tables: under the clinician, under the policy, and the best there is. Learning never saw them."]],
      ["Disagreement", ["1 minus the probability that policy and clinicians can be made to share: 0 if they do the same, 100 % if never. States were clustered with the same window's doses among their features, so part of the agreement is built in."]],
      ["Dose levels, features", page.notes]);
  } else {
    facts.push(
      ["Not known", ["No environment simulates these patients: no truth, no SOFA, no names. The recorded shares stand in for the clinicians' probabilities."]],
      ["Intervals", ["95 %, over recorded stays, of the difference between the recorded actions and those of the policy in the same states."]],
      ["Disagreement", ["1 minus the overlap of the policy's probabilities and the recorded shares."]]);
  }
  show("about", el("div", { class: "card long" }, el("h2", {}, "What this page is made of"),
    el("dl", {}, ...facts.flatMap(([term, texts]) => [el("dt", {}, term), el("dd", {}, ...texts.map((text) => el("p", {}, text)))]))));
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
  const [tab, number_, item] = location.hash.slice(1).split("/");
  view.tab = TABS.includes(tab) ? tab : "summary";
  view.policy = number_ in page.policies ? Number(number_) : 0;
  if (view.tab === "states" && indexOf.has(Number(item)) && item) view.state = Number(item);
  if (view.tab === "patients" && item in page.courses) view.patient = Number(item);
  render();
}

function begin() {
  byId("policy").append(...page.policies.map((own, place) => el("option", { value: place }, own.name)));
  byId("state-order").append(...Object.entries(ORDERS).map(([key, [label]]) => el("option", { value: key }, label)));
  byId("patient-filter").append(...Object.entries(FILTERS).map(([key, [label]]) => el("option", { value: key }, label)));
  if (!page.truth) byId("tab-patients").remove();
  byId("policy").addEventListener("change", (event) => go({ policy: Number(event.target.value), dose: null }));
  byId("state-order").addEventListener("change", renderStateList);
  byId("state-query").addEventListener("input", () => {
    const found = renderStateList();
    if (found.length && !found.includes(indexOf.get(view.state))) go({ state: states.id[found[0]], dose: null });
  });
  byId("state-query").addEventListener("keydown", (event) => { if (event.key === "ArrowDown") byId("state-list").focus(); });
  byId("patient-filter").addEventListener("change", () => {
    const found = renderPatientList();
    go({ patient: found.includes(view.patient) ? view.patient : found[0] ?? null });
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
  addEventListener("resize", () => { if (view.tab === "patients") renderPatient(); });
  readAddress();
}

begin();
