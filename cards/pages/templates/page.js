"use strict";
const board = JSON.parse(document.getElementById("board").textContent);
const chartOptions = { actions: false, renderer: "svg", tooltip: { theme: "custom" } };

/* Data sets: one shown at a time, named in the address so that a link leads there. */
function showFacet(key) {
  for (const section of document.querySelectorAll(".facet")) section.hidden = section.dataset.facet !== key;
  for (const tab of document.querySelectorAll(".tab"))
    tab.setAttribute("aria-pressed", String(tab.dataset.facet === key));
  const section = document.getElementById(`facet-${key}`);
  for (const chart of section.querySelectorAll(".chart[data-view]:empty"))
    drawChart(chart, board[key].views[chart.dataset.view]);
  for (const classes of section.querySelectorAll(".classes:not([data-ready])"))
    startClasses(classes, board[key], board[key].classViews[classes.dataset.section]);
}

/* Charts: arrow keys go from point to point and show what hovering shows. */
function drawChart(chart, spec) {
  const spoken = chart.parentElement.querySelector(".spoken");
  let current = null;
  function leave() {
    for (const kind of ["pointerout", "mouseout"]) // Vega hides a tooltip at the one, browsers send both
      if (current) current.dispatchEvent(new PointerEvent(kind, { bubbles: true }));
    current = null;
  }
  function show(point) {
    leave();
    current = point;
    const box = point.getBoundingClientRect();
    const [clientX, clientY] = [box.x + box.width / 2, box.y + box.height / 2];
    point.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX, clientY }));
    spoken.textContent = point.getAttribute("aria-label");
  }
  chart.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    const kind = ["class", "circle"].find(k => chart.querySelector(`[aria-roledescription=${k}]`)) ?? "point";
    const points = [...chart.querySelectorAll(`path[aria-roledescription=${kind}]`)];
    const place = points.indexOf(current);
    const next = place < 0 ? (step > 0 ? 0 : points.length - 1) : place + step;
    if (points.length) show(points[(next + points.length) % points.length]);
  });
  chart.addEventListener("blur", leave);
  return vegaEmbed(chart, spec, chartOptions);
}

/* Sorting: inside each group; rows without a value stay last either way. */
function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}
function cellValue(row, index) {
  const value = row.cells[index].dataset.value;
  if (value === undefined) return null;
  return value.trim() === "" || isNaN(value) ? value : Number(value);
}
function sortRows(table, index, direction) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter(row => !row.classList.contains("group"));
    const keyed = rows.map(row => [cellValue(row, index), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return direction === "ascending" ? compare(a, b) : -compare(a, b);
    });
    body.append(...keyed.map(([, row]) => row));
  }
}
function startSorting(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, index) => {
    heading.querySelector("button").addEventListener("click", () => {
      const first = heading.dataset.better === "higher" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const direction = heading.getAttribute("aria-sort") === first ? other : first;
      for (const each of headings) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction);
      sortRows(table, index, direction);
    });
  });
}

/* Filtering: rows whose text has every word; groups without a row left disappear. */
function startFilter(article) {
  const words = article.querySelector(".filter");
  const group = article.querySelector(".group-choice");
  const bodies = [...article.querySelector("table").tBodies];
  function apply() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    bodies.forEach((body, index) => {
      const chosen = !group || group.value === "" || Number(group.value) === index;
      let left = 0;
      for (const row of body.rows) {
        if (row.classList.contains("group")) continue;
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every(word => text.includes(word));
        if (!row.hidden) left += 1;
      }
      body.hidden = !chosen || left === 0;
      if (!body.hidden) shown += left;
    });
    article.querySelector(".count").textContent = shown === 1 ? "1 row" : `${shown} rows`;
  }
  words.addEventListener("input", apply);
  if (group) group.addEventListener("change", apply);
}

/* Classes: a chart and a table of the same numbers, for one training set at a time. */
const verdicts = ["not significant", "helped", "harmed", "not tested"];
function signed(number) {
  return (number > 0 ? "+" : number < 0 ? "\u2212" : "") + Math.abs(number).toFixed(1);
}
function classRecord(name, packed) {
  const [real, other, low, high] = packed.slice(0, 4).map(tenths => tenths / 10);
  const verdict = packed[4];
  return {
    name, real, other, low, high, verdict: verdicts[verdict], picked: false,
    difference: Number((other - real).toFixed(1)), interval: `${signed(low)} to ${signed(high)}`,
  };
}
function classRow(record) {
  const row = document.createElement("tr");
  const cells = [
    [record.name, record.name, ""],
    [record.real.toFixed(1), record.real, "number"],
    [record.other.toFixed(1), record.other, "number"],
    [signed(record.difference), record.difference, "number"],
    [record.interval, record.low, "number"],
    [record.verdict, record.verdict, ""],
  ];
  for (const [text, value, style] of cells) {
    const cell = row.insertCell();
    cell.textContent = text;
    cell.dataset.value = value;
    cell.className = style;
  }
  return row;
}
function startClasses(article, data, views) {
  article.dataset.ready = "yes";
  const choice = article.querySelector(".class-view");
  const buttons = [...article.querySelectorAll(".verdict")];
  const find = article.querySelector(".find-class");
  const table = article.querySelector("table");
  const chart = drawChart(article.querySelector(".class-chart"), data.classSpec);
  let verdict = "";
  let records = [];
  let rows = new Map();
  function filter() {
    const word = find.value.trim().toLowerCase();
    let shown = 0;
    for (const record of records) {
      const found = record.name.toLowerCase().includes(word);
      record.picked = word !== "" && found;
      const row = rows.get(record);
      row.hidden = !found || (verdict !== "" && record.verdict !== verdict);
      row.classList.toggle("picked", record.picked);
      shown += !row.hidden;
    }
    const marked = records.filter(record => record.picked);
    if (marked.length > 12) for (const record of marked) record.picked = false;
    article.querySelector(".count").textContent =
      `${shown} of ${records.length} classes; against ${views[choice.value].baseline}`;
    const drawn = records.filter(r => verdict === "" || r.verdict === verdict);
    const named = records.length <= 12; // more names would cover each other
    const least = Math.min(...records.map(r => Math.min(r.real, r.other)));
    const lowest = Math.min(90, 10 * Math.floor(least / 10));
    chart.then(({ view }) =>
      view.signal("lowest", lowest).data("classes", drawn.map(r => ({ ...r, named }))).runAsync());
  }
  function count() {
    for (const button of buttons) {
      const own = records.filter(r => !button.value || r.verdict === button.value).length;
      button.setAttribute("aria-pressed", String(button.value === verdict));
      button.querySelector("b").textContent = own;
    }
  }
  function load() {
    const { rows: packed, rule } = views[choice.value];
    records = data.classNames.flatMap((name, i) => (packed[i] ? [classRecord(name, packed[i])] : []));
    records.sort((a, b) => a.difference - b.difference);
    article.querySelector(".rule").textContent = rule;
    rows = new Map(records.map(record => [record, classRow(record)]));
    table.tBodies[0].replaceChildren(...rows.values());
    const sorted = table.querySelector("[aria-sort]");
    sortRows(table, sorted.cellIndex, sorted.getAttribute("aria-sort"));
    count();
    filter();
  }
  choice.addEventListener("change", load);
  for (const button of buttons)
    button.addEventListener("click", () => {
      verdict = button.value;
      count();
      filter();
    });
  find.addEventListener("input", filter);
  load();
}

for (const table of document.querySelectorAll("table.data")) startSorting(table);
for (const article of document.querySelectorAll(".ranking")) startFilter(article);
for (const tab of document.querySelectorAll(".tab"))
  tab.addEventListener("click", () => { location.hash = tab.dataset.facet; });
for (const jump of document.querySelectorAll(".jump"))
  jump.addEventListener("click", () => {
    document.getElementById(jump.dataset.to).scrollIntoView();
    document.getElementById(`${jump.dataset.to}-title`).focus({ preventScroll: true });
  });
function followAddress() {
  const key = decodeURIComponent(location.hash.slice(1));
  showFacet(key in board ? key : Object.keys(board)[0]);
}
window.addEventListener("hashchange", followAddress);
followAddress();
