// The picture of a patient's two courses: SOFA over time, and the doses of each step below it.

const PLOT = { left: 78, right: 66, top: 14, height: 170, band: 18 };
const bold = (color) => ({
  style: `fill: ${color}; font-weight: 650; paint-order: stroke; stroke: #fff; stroke-width: 3px`,
});
const label = (x, y, anchor, said, more = {}) =>
  svg("text", { x, y, "text-anchor": anchor, ...more }, said);

function drawCourse(place, clinician, own) {
  const width = Math.max(place.clientWidth, 280);
  const steps = Math.max(clinician.doses.length, own.doses.length);
  const x = (step) => PLOT.left + ((width - PLOT.left - PLOT.right) * step) / steps;
  const lines = [
    { name: "Clinician", course: clinician, color: "#1b2126", dashes: "6 4" },
    { name: "Policy", course: own, color: "#0072b2", dashes: null },
  ];
  for (const line of lines) {
    const alive = line.course.states.filter((id) => indexOf.has(id));
    line.scores = alive.map((id) => sofa(indexOf.get(id)));
  }
  const [bands, height] = doseBands(lines, x);
  place.replaceChildren(
    el(
      "div",
      { class: "legend" },
      el("span", {}, "dashed, circles: clinician"),
      el("span", {}, "solid, squares: policy"),
    ),
    svg(
      "svg",
      {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label":
          "SOFA and doses over time under clinician and policy; the table below has the numbers",
      },
      scorePlot(lines, x, steps, width),
      bands,
    ),
  );
}

function scorePlot(lines, x, steps, width) {
  const high = Math.ceil(Math.max(...lines.flatMap((line) => line.scores)) + 0.5);
  const y = (score) => PLOT.top + PLOT.height * (1 - score / high);
  const end = width - PLOT.right;
  const parts = [label(4, PLOT.top + 4, "start", "SOFA")];
  for (const score of [...[0, 5, 8, 11].filter((bound) => high - bound > 1), high]) {
    const at = { y1: y(score), y2: y(score), stroke: "#e3e7ea" };
    parts.push(svg("line", { x1: PLOT.left, x2: end, ...at }));
    parts.push(label(PLOT.left - 6, y(score) + 4, "end", String(score)));
  }
  const below = PLOT.top + PLOT.height + 16;
  const stride = Math.ceil(steps / Math.max(1, Math.floor((end - PLOT.left) / 34)));
  for (let step = 0; step <= steps; step += stride)
    parts.push(label(x(step), below, "middle", String(HOURS * step)));
  parts.push(label(end + 14, below, "start", "hours"));
  const ends = lines.map(({ scores }) => [x(scores.length - 1), y(scores.at(-1))]);
  const collide = ends[0][0] === ends[1][0] && Math.abs(ends[0][1] - ends[1][1]) < 14;
  lines.forEach(({ scores, color, dashes, course: { outcome } }, which) => {
    const points = scores.map((score, step) => [x(step), y(score)]);
    const stroke = { stroke: color, "stroke-width": 2, "stroke-dasharray": dashes };
    parts.push(svg("polyline", { points: points.join(" "), fill: "none", ...stroke }));
    for (const [cx, cy] of points) {
      const ring = { cx, cy, r: 4, fill: "#fff", stroke: color, "stroke-width": 1.6 };
      const square = { x: cx - 3, y: cy - 3, width: 6, height: 6, fill: color };
      parts.push(which ? svg("rect", square) : svg("circle", ring));
    }
    const shift = collide ? [-5, 9][which] : 4;
    const said = outcome === "survives" ? outcome : `✕ ${outcome}`;
    parts.push(label(ends[which][0] + 8, ends[which][1] + shift, "start", said, bold(color)));
  });
  return parts;
}

// Returns the bands and the height at which they end.
function doseBands(lines, x) {
  const parts = [];
  let height = PLOT.top + PLOT.height + 16;
  ["IV fluid", "vasopressor"].forEach((drug, which) => {
    parts.push(label(4, height + 20, "start", drug, bold("#56616b")));
    height += 25;
    for (const { name, course, color } of lines) {
      parts.push(label(PLOT.left - 6, height + 13, "end", name));
      course.doses.forEach((action, step) => {
        const level = levels(action)[which];
        const cell = x(step + 1) - x(step);
        const place = { x: x(step), y: height, width: Math.max(cell - 1, 1) };
        const shade = { fill: color, "fill-opacity": level ? 0.12 + 0.16 * level : 0.04 };
        parts.push(svg("rect", { ...place, height: PLOT.band - 2, ...shade }));
        const ink = { style: `fill: ${level > 2 ? "#fff" : "#1b2126"}` };
        const middle = x(step) + cell / 2 - 0.5;
        if (cell > 9) parts.push(label(middle, height + 12, "middle", String(level), ink));
      });
      height += PLOT.band;
    }
  });
  return [parts, height + 6];
}
