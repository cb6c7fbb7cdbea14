// Tables: sorted by a column, filtered by method and data set, each number with its exact value.

const collator = new Intl.Collator("en", { numeric: true });
/** Return what a cell is sorted by: those with a value first, what does not apply last. */
function keyOf(cell) {
  const text = cell.textContent.trim();
  if (cell.dataset.value) return { rank: 0, value: Number(cell.dataset.value), text };
  return { rank: text === "–" ? 2 : 1, value: 0, text };
}

/** Compare two keys: by value, or by text; descending, the ranks stay in their order. */
function compare(a, b, descending) {
  if (a.rank !== b.rank) return a.rank - b.rank;
  const order = a.rank === 0 ? a.value - b.value : collator.compare(a.text, b.text);
  return descending ? -order : order;
}

function sortBy(table, header) {
  const at = header.cellIndex;
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) {
    other.setAttribute("aria-sort", "none");
  }
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map((row) => ({ row, key: keyOf(row.cells[at]) }));
  keyed.sort((a, b) => compare(a.key, b.key, descending));
  table.tBodies[0].append(...keyed.map(({ row }) => row));
  reachable(table);
}

/** Let the arrow keys move among a table's visible numbers. */
function reachable(table) {
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const grid = rows.map((row) => [...row.querySelectorAll("td:not([hidden]) button.cell")]);
  table.move = rove(grid.filter((row) => row.length));
}

/** Return the lines about a number: its value, and its spread over seeds. */
function linesOf(button) {
  const cell = button.closest("td, th");
  const header = cell.closest("table").querySelectorAll("th[aria-sort]")[cell.cellIndex];
  const lines = [`${header.textContent.trim()}: ${button.textContent.trim()}`];
  if (cell.dataset.value) lines.push(`exactly ${cell.dataset.value}`);
  const { sd, n } = cell.dataset;
  if (sd) lines.push(`sd ${Number(sd).toPrecision(6)}, n = ${n}`);
  return lines;
}

const tables = [...document.querySelectorAll("table")];
for (const table of tables) {
  for (const button of table.querySelectorAll("button.cell")) {
    tips.set(button, () => linesOf(button));
  }
  for (const button of table.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => sortBy(table, button.closest("th")));
  }
  table.addEventListener("keydown", (event) => table.move(event));
  reachable(table);
}

// ---- The filter

const form = document.getElementById("filter");
const filterListeners = [];

/** Return a table's column of that header, or -1. */
function columnOf(table, header) {
  const headers = [...table.querySelectorAll("th[aria-sort]")];
  return headers.findIndex((each) => each.textContent.trim() === header);
}

const textsOf = (table, at) => [...table.tBodies[0].rows].map((r) => r.cells[at].textContent.trim());
const isOf = (title, dataset) => title === dataset || title.startsWith(`${dataset}, short side`);

/** Hide rows, and groups of columns, that are not of the chosen method and data set. */
function applyFilter() {
  const method = form.elements.method.value;
  const dataset = form.elements.dataset.value;
  const counted = new Map(); // the rows of the first table of each section
  for (const table of tables) {
    const [methodAt, datasetAt] = [columnOf(table, "Method"), columnOf(table, "Data set")];
    for (const row of table.tBodies[0].rows) {
      const text = (at) => row.cells[at].textContent.trim();
      row.hidden = Boolean(
        (method && methodAt >= 0 && text(methodAt) !== method) ||
        (dataset && datasetAt >= 0 && !isOf(text(datasetAt), dataset)),
      );
    }
    const section = table.closest("section");
    if (methodAt >= 0 && !counted.has(section)) counted.set(section, [...table.tBodies[0].rows]);
    const groups = [...table.querySelectorAll("[data-group]")];
    const known = groups.some((cell) => isOf(cell.dataset.group, dataset));
    for (const cell of groups) cell.hidden = known && !isOf(cell.dataset.group, dataset);
    reachable(table);
  }
  const rows = [...counted.values()].flat();
  const shown = rows.filter((row) => !row.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
  for (const listener of filterListeners) listener();
}

/** Offer each distinct choice, or hide the label where there is none. */
function offer(select, names) {
  select.append(...names.map((name) => make("option", {}, name)));
  select.parentElement.hidden = names.length < 2;
}

if (form) {
  const methods = tables.flatMap((table) => {
    const at = columnOf(table, "Method");
    return at < 0 ? [] : textsOf(table, at);
  });
  const datasets = (data.origins.rows ?? []).map((_, row) => valueOf(row, "dataset"));
  offer(form.elements.method, [...new Set(methods)]);
  offer(form.elements.dataset, [...new Set(datasets)]);
  form.addEventListener("change", applyFilter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  document.querySelector(".hint").hidden = false;
  applyFilter();
}
