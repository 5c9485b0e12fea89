// What the page shows, as JSON. Its texts become text nodes and never markup.

const page = JSON.parse(byId("content").textContent);
const states = page.states;
const indexOf = new Map(states.id.map((id, index) => [id, index]));
const HOURS = 4; // of a step
const view = { tab: "summary", policy: 0, state: null, patient: 0, dose: null };

const policy = () => page.policies[view.policy];

const levels = (action) => [Math.floor(action / page.grid[1]), action % page.grid[1]];
const doseName = (action) => {
  if (!page.grid) return `action ${action}`;
  const [fluid, vasopressor] = levels(action);
  return `IV fluid ${fluid}, vasopressor ${vasopressor}`;
};
const given = (index, action, own = policy()) =>
  own.probabilities
    ? own.probabilities[index][action] / 1000
    : Number(own.choice[index] === action);
const recorded = (index) => states.counts[index].reduce((sum, count) => sum + count, 0);
const share = (index, action) => states.counts[index][action] / Math.max(recorded(index), 1);
const theirs = (index, action) =>
  page.truth ? states.clinician[index][action] / 1000 : share(index, action);
const actions = [...Array(page.actions).keys()];
const admissible = (index, action) => !page.truth || states.admissible[index][action] === "1";
const supported = (index, action) => states.counts[index][action] > 0;
const favorite = (index) =>
  actions.reduce(
    (best, action) => (theirs(index, action) > theirs(index, best) ? action : best),
    0,
  );
const disagreement = (index) =>
  Math.max(
    0,
    1 -
      actions.reduce(
        (sum, action) => sum + Math.min(given(index, action), theirs(index, action)),
        0,
      ),
  );
const sofa = (index) => states.sofa[index] / 10;
const gain = (index) => (policy().values.state[index] - page.values.clinician.state[index]) / 1e4;
const visits = (index) => (page.truth ? policy().visits : states.visits)[index] / 1e6;

function stateName(id) {
  if (id === page.survival) return "survives, end";
  if (id === page.death) return "dies, end";
  return `state ${id}`;
}
