// The summary: who gains, who loses, and what is given more or less often.

function renderSummary() {
  const summary = policy().summary;
  show(
    "summary",
    page.truth ? [headline(summary.groups[0]), gains(summary.groups)] : recordsHeadline(),
    doses(summary),
    page.policies.length > 1 ? sideBySide() : null,
  );
}

function headline(all) {
  const colored = verdict(all.survival, "gain", "loss");
  const optimum = page.values.optimum.start;
  const card = (title, figure, unit, text, kind = "") =>
    el(
      "div",
      { class: "card" },
      el("h3", {}, title),
      el("div", { class: `figure ${kind}` }, figure, el("small", {}, ` ${unit}`)),
      el("p", { class: "quiet" }, text),
    );
  return el(
    "div",
    { class: "cards" },
    card(
      "Survival, against clinicians",
      signed(100 * all.survival.difference),
      "points",
      `${spanText(all.survival, 100)}, from ${plural(page.patients, "simulated patient")} ` +
        "that both treat",
      colored,
    ),
    el(
      "div",
      { class: "card" },
      el("h3", {}, "90-day survival, exact"),
      bars([
        ["clinician", all.exact[0], "clinician"],
        ["policy", all.exact[1], ""],
        ["optimum", optimum, "optimum"],
      ]),
      el("p", { class: "quiet" }, "solved from the simulator's own tables"),
    ),
    card(
      "Hours on vasopressors",
      signed(all.vasopressor_hours.difference),
      "h a patient",
      `${spanText(all.vasopressor_hours, 1)}; ${number(all.vasopressor_hours.clinician)} h ` +
        `with clinicians, ${number(all.vasopressor_hours.policy)} h with the policy: 4-hour ` +
        "steps with a level above 0",
    ),
    card(
      "Hours of treatment",
      signed(all.hours.difference),
      "h a patient",
      `${spanText(all.hours, 1)}; ${number(all.hours.clinician)} h and ` +
        `${number(all.hours.policy)} h. Who lives longer is treated longer`,
    ),
  );
}

function gains(groups) {
  const limit = widest(groups.map((group) => group.survival));
  const rows = groups.map((group) => [
    group.name,
    percent(group.share, 0),
    percent(group.exact[0]),
    percent(group.exact[1]),
    whisker(group.survival.difference, group.survival.interval, limit),
    intervalText(group.survival, 100, 1),
    el(
      "span",
      { class: verdict(group.survival, "gain", "loss") },
      verdict(group.survival, "gain", "loss"),
    ),
    `${group.only_policy.toLocaleString("en")} / ${group.only_clinician.toLocaleString("en")}`,
  ]);
  return el(
    "div",
    { class: "card" },
    el("h2", {}, "Who gains, who loses"),
    el(
      "p",
      { class: "quiet" },
      "By the SOFA score of a patient's first state. The same " +
        "patients meet the same draws under clinician and policy; what is shown is the " +
        "policy minus the clinician, with a 95 % interval.",
    ),
    table(
      [
        "first state",
        "#patients",
        "#clinician, exact",
        "#policy, exact",
        "difference",
        "#points (95 %)",
        "",
        "#saved only by policy / clinician",
      ],
      rows,
    ),
  );
}

function hours(groups) {
  return el(
    "div",
    { class: "card" },
    el("h2", {}, "Hours on vasopressors"),
    el(
      "p",
      { class: "quiet" },
      "Mean of a patient's 4-hour steps with a vasopressor level above 0, by the SOFA score " +
        "of the first state.",
    ),
    table(
      ["first state", "#clinician, h", "#policy, h", "difference", "#hours (95 %)"],
      hourRows(groups),
    ),
  );
}

function sideBySide() {
  const name = (own, place) =>
    el("button", { class: "link", onclick: () => go({ policy: place, dose: null }) }, own.name);
  const card = (about, ...given) =>
    el(
      "div",
      { class: "card" },
      el("h2", {}, "The policies side by side"),
      el("p", { class: "quiet" }, about),
      table(...given),
    );
  if (!page.truth) {
    return card(
      "Supported value, from records.",
      ["policy", "#supported value"],
      page.policies.map((own, place) => [name(own, place), percent(own.supported_value)]),
    );
  }
  const all = page.policies.map((own) => own.summary.groups[0]);
  const limit = widest(all.map((group) => group.survival));
  return card(
    "All patients; each policy meets the same ones. Differences are to the clinician.",
    [
      "policy",
      "#survival, exact",
      "difference",
      "#points (95 %)",
      "#vasopressors, h",
      "#supported value",
    ],
    page.policies.map((own, place) => [
      name(own, place),
      percent(all[place].exact[1]),
      whisker(all[place].survival.difference, all[place].survival.interval, limit),
      intervalText(all[place].survival, 100, 1),
      number(all[place].vasopressor_hours.policy),
      percent(own.supported_value),
    ]),
  );
}

function hourRows(groups) {
  const limit = widest(groups.map((group) => group.vasopressor_hours));
  return groups.map(({ name, vasopressor_hours: hours }) => [
    name,
    number(hours.clinician),
    number(hours.policy),
    whisker(hours.difference, hours.interval, limit),
    intervalText(hours, 1, 1),
  ]);
}

function recordsHeadline() {
  return [
    el(
      "div",
      { class: "card" },
      el("h2", {}, "Judged by records alone"),
      el(
        "p",
        {},
        "No environment simulates these patients. So there is no exact survival, no " +
          "simulated course and no table of the clinicians' probabilities here: the recorded " +
          "shares stand in for it. States have no SOFA score and no features, and actions have " +
          "numbers, as nothing says what they are. Stays of real patients are not put on a " +
          "page that may be passed on.",
      ),
      el(
        "div",
        { style: "max-width: 48rem" },
        bars([
          ["recorded stays that survived", page.survived, "clinician"],
          ["supported value, recorded decisions", page.supported_value, "clinician"],
          ["supported value, policy", policy().supported_value, ""],
        ]),
      ),
      el(
        "p",
        { class: "quiet" },
        "The supported value is what dynamics estimated from all records make of a policy, " +
          "less a price for decisions that are rare in them. It is for choosing, and as a " +
          "claim too high by a point or so.",
      ),
    ),
  ];
}

function doses(summary) {
  const head = (what) => [
    what,
    "#recorded",
    `#${page.truth ? "clinician" : "records"}`,
    "#policy",
    "difference",
    "#points (95 %)",
  ];
  const rows = (label, found, own) => {
    const limit = widest(found);
    return found.map((row, level) => [
      label(level),
      percent(own[level]),
      percent(row.clinician),
      percent(row.policy),
      whisker(row.difference, row.interval, limit),
      intervalText(row, 100, 1),
    ]);
  };
  const note = page.truth
    ? "Shares of all 4-hour decisions: of the training records, and of the simulated " +
      "patients under clinician and policy. Differences are the policy's minus the " +
      "clinician's, with 95 % intervals from the same patients."
    : "Shares of the training decisions, and of what the policy would do in the same states. " +
      "Differences are the policy's minus the recorded, with 95 % intervals over stays.";
  const drop = (cells) => (page.truth ? cells : [cells[0], ...cells.slice(2)]);
  if (!page.grid) {
    const order = [...actions].sort(
      (a, b) => Math.abs(summary.actions[b].difference) - Math.abs(summary.actions[a].difference),
    );
    return el(
      "div",
      { class: "card long" },
      el("h2", {}, "Actions, more or less often than recorded"),
      el("p", { class: "quiet" }, note),
      table(
        drop(head("action")),
        order.map((action) => drop(rows(String, summary.actions, page.recorded_shares)[action])),
      ),
    );
  }
  const meaning = ["0, none", "1, lowest quarter", "2", "3", "4, highest quarter"];
  const label = (drug) => (level) => (page.grid[drug] === 5 ? meaning[level] : String(level));
  const marginal = (drug) =>
    [...Array(page.grid[drug]).keys()].map((level) =>
      actions
        .filter((action) => levels(action)[drug] === level)
        .reduce((sum, action) => sum + page.recorded_shares[action], 0),
    );
  const drugs = [
    ["IV fluid level", 0, "iv_fluid"],
    ["vasopressor level", 1, "vasopressor"],
  ];
  return el(
    "div",
    {},
    el(
      "div",
      { class: "card long" },
      el("h2", {}, "Doses, more or less often than clinicians give them"),
      el("p", { class: "quiet" }, note),
      el(
        "div",
        { class: "two" },
        ...drugs.map(([name, drug, key]) =>
          table(head(name), rows(label(drug), summary[key], marginal(drug))),
        ),
      ),
    ),
    el(
      "div",
      { class: "two" },
      el("div", { class: "card" }, differenceGrid(summary.actions)),
      hours(summary.groups),
    ),
  );
}
