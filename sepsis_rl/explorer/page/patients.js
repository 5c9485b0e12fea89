// The same patients under clinician and policy.

function course(woven) {
  const end = woven[woven.length - 1];
  const found = {
    states: woven.filter((_, place) => place % 2 === 0),
    doses: woven.filter((_, place) => place % 2 === 1),
  };
  found.outcome = { [page.survival]: "survives", [page.death]: "dies" }[end] ?? "is still treated";
  found.hours = HOURS * found.doses.length;
  found.pressed = HOURS * found.doses.filter((action) => levels(action)[1] > 0).length;
  return found;
}

const both = (patient) => [course(page.courses[patient]), course(policy().courses[patient])];
const outcomes = (patient) =>
  both(patient)
    .map(({ outcome }) => outcome)
    .join("/");
const FILTERS = {
  all: ["all patients", () => true],
  differs: ["different outcomes", (patient) => new Set(outcomes(patient).split("/")).size > 1],
  policy: ["only the policy saves", (patient) => outcomes(patient) === "dies/survives"],
  clinician: ["only the clinician saves", (patient) => outcomes(patient) === "survives/dies"],
  survive: ["both survive", (patient) => outcomes(patient) === "survives/survives"],
  die: ["both die", (patient) => outcomes(patient) === "dies/dies"],
};

const patientList = listBox(
  byId("patient-list"),
  (patient) => {
    const [clinician, own] = both(patient);
    return [
      el("b", {}, `Patient ${patient}`),
      el("span", { class: "number" }, `SOFA ${number(sofa(indexOf.get(clinician.states[0])))}`),
      el("span", { class: "quiet" }, `clinician ${clinician.outcome} · policy ${own.outcome}`),
    ];
  },
  (patient) => go({ patient }),
);

function renderPatientList() {
  const keep = FILTERS[byId("patient-filter").value][1];
  const found = page.courses.map((_, patient) => patient).filter(keep);
  byId("patient-count").textContent =
    `${found.length.toLocaleString("en")} of ${plural(page.courses.length, "patient")}`;
  patientList.fill(found);
  return found;
}

function renderPatient() {
  if (view.patient === null)
    return show("patient", el("p", { class: "card" }, "No patient is found."));
  patientList.select(view.patient);
  const [clinician, own] = both(view.patient);
  const apart = clinician.doses.findIndex((action, step) => action !== own.doses[step]);
  const about = (name, { outcome, hours, pressed }) =>
    el(
      "p",
      {},
      el("b", {}, `${name} ${outcome}`),
      ` after ${hours} h, ${pressed} h of them on vasopressors.`,
    );
  const picture = el("div", { id: "chart" });
  show(
    "patient",
    el(
      "div",
      { class: "card" },
      el("h2", {}, `Patient ${view.patient}`),
      el(
        "div",
        { class: "two narrow" },
        about("Clinician: patient", clinician),
        about("Policy: patient", own),
      ),
      el(
        "p",
        { class: "quiet" },
        apart < 0
          ? "Every dose is the same."
          : `Same start and same draws; the doses first differ at ${HOURS * apart} h.`,
        " A draw decides between what may follow a dose; once the states differ, the same " +
          "draw means something else.",
      ),
      picture,
    ),
    el(
      "div",
      { class: "card long" },
      el("h2", {}, "Dose by dose"),
      el(
        "p",
        { class: "quiet" },
        "IV and vaso are the levels of IV fluid and of vasopressor; rows in which the doses " +
          "differ are shaded.",
      ),
      courseTable(clinician, own),
    ),
  );
  drawCourse(picture, clinician, own);
}

function courseTable(clinician, own) {
  const steps = Math.max(clinician.states.length, own.states.length);
  const cells = ({ states: visited, doses: taken }, step, kind) => {
    const id = visited[step];
    if (id === undefined) return [el("td", { class: kind }), el("td"), el("td"), el("td")];
    if (!indexOf.has(id))
      return [el("td", { class: kind, colspan: 4 }, el("b", {}, stateName(id)))];
    const dose = taken[step] === undefined ? ["", ""] : levels(taken[step]).map(String);
    return [
      el(
        "td",
        { class: kind },
        el(
          "button",
          { class: "link", onclick: () => go({ tab: "states", state: id, dose: null }) },
          String(id),
        ),
      ),
      el("td", { class: "number" }, number(sofa(indexOf.get(id)))),
      el("td", { class: "number" }, dose[0]),
      el("td", { class: "number" }, dose[1]),
    ];
  };
  const head = (kind) => [
    el("th", { scope: "col", class: kind }, "state"),
    ...["SOFA", "IV", "vaso"].map((text) => el("th", { scope: "col", class: "number" }, text)),
  ];
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "course" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th"),
          el("th", { scope: "colgroup", colspan: 4 }, "Clinician"),
          el("th", { scope: "colgroup", colspan: 4, class: "ours" }, "Policy"),
        ),
        el("tr", {}, el("th", { scope: "col" }, "hour"), ...head(null), ...head("ours")),
      ),
      el(
        "tbody",
        {},
        ...[...Array(steps).keys()].map((step) =>
          el(
            "tr",
            { class: clinician.doses[step] === own.doses[step] ? null : "apart" },
            el("th", { scope: "row" }, String(HOURS * step)),
            ...cells(clinician, step, null),
            ...cells(own, step, "ours"),
          ),
        ),
      ),
    ),
  );
}
