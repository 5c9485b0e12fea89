"use strict";

// What all views use: elements, numbers in words, lists, small pictures and tables.

const byId = (id) => document.getElementById(id);
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

const number = (value, digits = 1) => {
  const text = Math.abs(value).toLocaleString("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return value < 0 && /[1-9]/.test(text) ? `−${text}` : text;
};
const percent = (share, digits = 1) => `${number(100 * share, digits)} %`;
const signed = (value, digits = 1) => {
  const text = number(value, digits);
  return value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
};
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// -- lists that arrows move through ------------------------------------------------------------

// A listbox keeps the focus and names the chosen option (WAI-ARIA's pattern).
function listBox(list, describe, choose) {
  let items = [];
  let chosen = null;
  const optionId = (item) => `${list.id}-${item}`;
  function mark(scroll) {
    for (const option of list.querySelectorAll("[aria-selected=true]"))
      option.setAttribute("aria-selected", "false");
    const option = byId(optionId(chosen));
    if (option === null) return list.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", option.id);
    // Only the list scrolls, never the page around it.
    const [above, below] = [
      option.offsetTop - list.offsetTop,
      option.offsetTop - list.offsetTop + option.offsetHeight,
    ];
    if (scroll && above < list.scrollTop) list.scrollTop = above;
    if (scroll && below > list.scrollTop + list.clientHeight)
      list.scrollTop = below - list.clientHeight;
  }
  list.addEventListener("keydown", (event) => {
    const steps = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 10,
      PageUp: -10,
      Home: -Infinity,
      End: Infinity,
    };
    if (!(event.key in steps) || items.length === 0) return;
    event.preventDefault();
    const place = Math.min(Math.max(items.indexOf(chosen) + steps[event.key], 0), items.length - 1);
    choose(items[place]);
  });
  return {
    fill(given) {
      items = given;
      list.replaceChildren(
        ...items.map((item) =>
          el(
            "li",
            {
              role: "option",
              id: optionId(item),
              "aria-selected": "false",
              onclick: () => choose(item),
            },
            ...describe(item),
          ),
        ),
      );
      mark(true);
    },
    select(item) {
      chosen = item;
      mark(true);
    },
  };
}

// -- small pictures ----------------------------------------------------------------------------

function bars(rows) {
  const shown = rows.filter(Boolean);
  return el(
    "div",
    { class: "bars" },
    ...shown.flatMap(([label, value, kind, text]) => [
      el("span", {}, label),
      el(
        "span",
        { class: "track", "aria-hidden": "true" },
        el("span", { class: kind, style: `width: ${100 * value}%` }),
      ),
      el("span", { class: "number" }, text ?? percent(value)),
    ]),
  );
}

function whisker(value, interval, limit) {
  const [width, height] = [144, 20];
  const x = (at) => width / 2 + (width / 2 - 4) * Math.min(Math.max(at / limit, -1), 1);
  const line = (from, to, color, thickness) =>
    svg("line", {
      x1: from[0],
      y1: from[1],
      x2: to[0],
      y2: to[1],
      stroke: color,
      "stroke-width": thickness,
    });
  return svg(
    "svg",
    { class: "whisker", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    line([width / 2, 0], [width / 2, height], "#98a2ab", 1),
    interval ? line([x(interval[0]), 10], [x(interval[1]), 10], "#0072b2", 2.5) : null,
    svg("circle", { cx: x(value), cy: 10, r: 4, fill: "#0072b2" }),
  );
}

const widest = (rows) =>
  Math.max(1e-9, ...rows.flatMap((row) => [row.difference, ...(row.interval ?? [])]).map(Math.abs));
const intervalText = (row, factor, digits) =>
  row.interval
    ? `${signed(factor * row.difference, digits)} ` +
      `(${signed(factor * row.interval[0], digits)}, ` +
      `${signed(factor * row.interval[1], digits)})`
    : `${signed(factor * row.difference, digits)} (too few for an interval)`;

const spanText = (row, factor) =>
  `95 % interval ${signed(factor * row.interval[0])} to ${signed(factor * row.interval[1])}`;

function verdict(row, more, less) {
  if (!row.interval) return "too few";
  if (row.interval[0] > 0) return more;
  if (row.interval[1] < 0) return less;
  return "not told apart";
}

// The roles stay where a phone's style shows rows as blocks.
function table(head, rows) {
  return el(
    "div",
    { class: "wide" },
    el(
      "table",
      { role: "table" },
      el(
        "thead",
        { role: "rowgroup" },
        el(
          "tr",
          { role: "row" },
          ...head.map((cell) =>
            el(
              "th",
              { role: "columnheader", scope: "col", class: cell.startsWith("#") ? "number" : null },
              cell.replace("#", ""),
            ),
          ),
        ),
      ),
      el(
        "tbody",
        { role: "rowgroup" },
        ...rows.map((row) =>
          el(
            "tr",
            { role: "row" },
            ...row.map((cell, column) =>
              column === 0
                ? el("th", { role: "rowheader", scope: "row", "data-label": head[0] }, cell)
                : el(
                    "td",
                    {
                      role: "cell",
                      class: head[column].startsWith("#") ? "number" : null,
                      "data-label": head[column].replace("#", ""),
                    },
                    cell,
                  ),
            ),
          ),
        ),
      ),
    ),
  );
}
