// The grids of doses of a state, and where the chosen dose leads.

// Fluid upward and vasopressor to the right; actions that are no doses go from left to right.
function gridTable(cell, label) {
  const columns = page.grid ? page.grid[1] : Math.ceil(Math.sqrt(page.actions));
  const rows = Math.ceil(page.actions / columns);
  const order = [...Array(rows).keys()];
  if (page.grid) order.reverse();
  const heads = [...Array(columns).keys()];
  return el(
    "div",
    {},
    el(
      "table",
      { class: "grid", "aria-label": label },
      el(
        "tbody",
        {},
        ...order.map((row) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, String(page.grid ? row : row * columns)),
            ...heads.map((column) =>
              row * columns + column < page.actions ? cell(row * columns + column) : el("td"),
            ),
          ),
        ),
      ),
      page.grid
        ? el(
            "tfoot",
            {},
            el(
              "tr",
              {},
              el("th"),
              ...heads.map((column) => el("th", { scope: "col" }, String(column))),
            ),
          )
        : null,
    ),
    el(
      "p",
      { class: "axis" },
      page.grid ? "IV fluid ↑  vasopressor →" : "action, from left to right",
    ),
  );
}

function doseGrid(name, title, about, index, text, shade) {
  const chosen = view.dose ?? policy().choice[index];
  const cell = (action) => {
    const open = admissible(index, action);
    const kind = [
      open ? null : "inadmissible",
      open && !supported(index, action) ? "unsupported" : null,
      policy().choice[index] === action ? "choice" : null,
    ];
    const marks = [
      open ? null : "inadmissible",
      supported(index, action) ? null : "never recorded",
      policy().choice[index] === action ? "the policy's choice" : null,
    ];
    const said = [`${doseName(action)}: ${title} ${text(action) || "0"}`, ...marks]
      .filter(Boolean)
      .join(", ");
    const plain = open && supported(index, action);
    return el(
      "td",
      {},
      el(
        "button",
        {
          class: kind.filter(Boolean).join(" "),
          "data-grid": name,
          "data-action": action,
          title: said,
          "aria-label": said,
          "aria-pressed": String(action === chosen),
          tabindex: action === chosen ? "0" : "-1",
          style: plain
            ? `background: rgba(0, 114, 178, ${(0.7 * shade(action)).toFixed(3)})`
            : null,
        },
        text(action),
      ),
    );
  };
  return el(
    "div",
    {},
    el("h3", {}, title),
    el("p", { class: "quiet" }, about),
    gridTable(cell, title),
  );
}

function renderDose() {
  const index = indexOf.get(view.state);
  const rounded = (value) => (value < 0.005 ? "" : String(Math.round(100 * value)));
  const grids = [];
  if (page.truth)
    grids.push(
      doseGrid(
        "clinician",
        "Clinicians",
        "probability, %",
        index,
        (a) => rounded(theirs(index, a)),
        (a) => theirs(index, a),
      ),
    );
  grids.push(
    doseGrid(
      "recorded",
      "Recorded",
      "share of records, %",
      index,
      (a) => rounded(share(index, a)),
      (a) => share(index, a),
    ),
  );
  grids.push(
    doseGrid(
      "policy",
      "Policy",
      "probability, %",
      index,
      (a) => rounded(given(index, a)),
      (a) => given(index, a),
    ),
  );
  if (policy().q) {
    const q = policy().q[index];
    const open = actions
      .filter((a) => admissible(index, a) && supported(index, a))
      .map((a) => q[a]);
    const [low, high] = [Math.min(...open), Math.max(...open)];
    grids.push(
      doseGrid(
        "q",
        "Q",
        "the network's value × 100",
        index,
        (a) => number(q[a] / 10, 1),
        (a) => (q[a] - low) / Math.max(high - low, 1),
      ),
    );
  }
  const most = Math.log1p(Math.max(...states.counts[index]));
  grids.push(
    doseGrid(
      "count",
      "Records",
      "number of decisions here",
      index,
      (a) => (states.counts[index][a] ? String(states.counts[index][a]) : ""),
      (a) => Math.log1p(states.counts[index][a]) / Math.max(most, 1),
    ),
  );
  const mark = (kind, text) => el("span", {}, el("i", { class: kind }), text);
  show(
    "grids",
    el("h2", {}, page.grid ? "Doses" : "Actions"),
    el("div", { class: "grids" }, ...grids),
    el(
      "div",
      { class: "legend" },
      mark("choice", "the policy's choice"),
      mark("chosen", "shown below: click, or arrows"),
      page.truth ? mark("inadmissible", "inadmissible") : null,
      mark("unsupported", "not supported: never recorded here"),
    ),
    policy().q
      ? null
      : el("p", { class: "quiet" }, "Behavior cloning has no Q: its scores are no values."),
  );
  renderLeads(index);
}

function renderLeads(index) {
  const action = view.dose ?? policy().choice[index];
  const row = states.row[index][action];
  const parts = [el("h2", {}, `Where ${doseName(action)} leads`)];
  if (row < 0) {
    parts.push(
      el("p", {}, "It was never recorded in this state, so nothing is known of what would follow."),
    );
  } else {
    const [others, ...listed] = page.rows[row];
    const pairs = listed
      .filter((_, place) => place % 2 === 0)
      .map((id, place) => [id, listed[2 * place + 1] / 1000]);
    const rest = 1 - pairs.reduce((sum, [, part]) => sum + part, 0);
    const label = (id) =>
      indexOf.has(id)
        ? el(
            "button",
            { class: "link", onclick: () => go({ state: id, dose: null }) },
            `state ${id}${page.truth ? `, SOFA ${number(sofa(indexOf.get(id)))}` : ""}`,
          )
        : stateName(id);
    const source = page.truth
      ? "After 4 hours, by the environment's own table."
      : "By the training records.";
    parts.push(
      el(
        "p",
        { class: "quiet" },
        source,
        admissible(index, action)
          ? ""
          : " An inadmissible dose has the mean of the admissible ones.",
        supported(index, action) ? "" : " The training records never have it here.",
      ),
      el(
        "div",
        { class: "two narrow" },
        bars([
          ...pairs.map(([id, part]) => [
            label(id),
            part,
            id === page.death || id === page.survival ? "end" : "",
          ]),
          others ? [`${plural(others, "other state")}`, Math.max(rest, 0), ""] : null,
        ]),
        page.truth
          ? valuesOf("Survival if it is given once, and then as …", (values) => values.row[row])
          : null,
      ),
    );
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
  if (action + step >= 0 && action + step < page.actions && (!sideways || sameRow))
    chooseDose(button, action + step);
});

function chooseDose(button, action) {
  view.dose = action;
  renderDose();
  document.querySelector(`[data-grid="${button.dataset.grid}"][data-action="${action}"]`).focus();
}

function differenceGrid(found) {
  const limit = widest(found);
  const color = (row) =>
    row.difference > 0
      ? `rgba(0, 114, 178, ${(0.7 * row.difference) / limit})`
      : `rgba(213, 94, 0, ${(-0.7 * row.difference) / limit})`;
  const clear = (row) => row.interval && (row.interval[0] > 0 || row.interval[1] < 0);
  const cell = (action) =>
    el(
      "td",
      {
        style: `background: ${color(found[action])}; padding: .3rem 0; border-radius: 3px`,
        title: `${doseName(action)}: ${intervalText(found[action], 100, 1)} points`,
      },
      signed(100 * found[action].difference) + (clear(found[action]) ? "*" : ""),
    );
  return el(
    "div",
    {},
    el("h2", {}, "Both drugs at once"),
    el(
      "p",
      { class: "quiet" },
      "Policy minus clinician, in points of all decisions. Blue with + is given more often, " +
        "orange with − less often; * where the 95 % interval leaves out 0.",
    ),
    gridTable(cell, "difference of shares by dose"),
  );
}
