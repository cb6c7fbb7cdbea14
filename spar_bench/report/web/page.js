// What all parts of the page share: elements, numbers, values shown on hover or focus, the theme.
// The files of this folder are one module, so none of their names is global.

const data = JSON.parse(document.getElementById("data").textContent);
const COLUMN = new Map((data.origins.columns ?? []).map((name, at) => [name, at]));

/** Make an HTML element; a child may be text. */
function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Make an SVG element. */
function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  element.append(...children);
  return element;
}

/** Return a row's value in a column of results.csv. */
function valueOf(row, column) {
  return data.origins.rows[row].values[COLUMN.get(column)];
}

/** Return what an element's source says: its column, and its rows. */
function sourceOf(element) {
  const [column, rows] = element.dataset.source.split(":");
  return { column, rows: rows.split(" ").map(Number) };
}

/** Write a number as a reader would: three digits and no powers of ten. */
function short(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", {
    minimumFractionDigits: Math.min(digits, 6), maximumFractionDigits: Math.min(digits, 6),
  });
}

const percent = (fraction) => (100 * fraction).toFixed(1);

// ---- Values on hover or focus

const tip = document.getElementById("tip");
const tips = new WeakMap(); // from an element to a function that returns its lines

function showTip(element) {
  const lines = tips.get(element)();
  tip.replaceChildren(...lines.map((line) => make("div", {}, line)));
  tip.hidden = false;
  element.setAttribute("aria-describedby", "tip");
  const at = element.getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(at.left + at.width / 2 - width / 2, innerWidth - width - 8);
  const top = at.top - height - 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${top < 8 ? at.bottom + 8 : top}px`;
}

function hideTip() {
  tip.hidden = true;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
}

const withTip = (node) => {
  for (let at = node; at instanceof Element; at = at.parentElement) if (tips.has(at)) return at;
  return null;
};

for (const [start, end] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  document.addEventListener(start, (event) => {
    const element = withTip(event.target);
    if (element) showTip(element);
  });
  document.addEventListener(end, (event) => withTip(event.target) && hideTip());
}
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
document.addEventListener("scroll", hideTip, { capture: true, passive: true });

/** Let one of `grid`, rows of elements, be in the order of the tab key; arrows reach the others. */
function rove(grid) {
  const all = grid.flat();
  for (const [at, element] of all.entries()) element.setAttribute("tabindex", at ? -1 : 0);
  return (event) => {
    const down = grid.findIndex((row) => row.includes(event.target));
    if (down < 0) return;
    const across = grid[down].indexOf(event.target);
    const next = {
      ArrowRight: () => grid[down][across + 1] ?? grid[down + 1]?.[0],
      ArrowLeft: () => grid[down][across - 1] ?? grid[down - 1]?.at(-1),
      ArrowDown: () => grid[down + 1]?.[Math.min(across, grid[down + 1].length - 1)],
      ArrowUp: () => grid[down - 1]?.[Math.min(across, grid[down - 1].length - 1)],
      Home: () => all[0],
      End: () => all.at(-1),
    }[event.key]?.();
    if (!next) return;
    event.preventDefault();
    for (const element of all) element.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  };
}

// ---- The theme, remembered where the browser lets a file do so

const theme = document.getElementById("theme");

function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  theme.value = name;
}

function remembered(change) {
  try {
    return change(window.localStorage);
  } catch {
    return null; // a file may have no storage: the choice then lasts as long as the page
  }
}

setTheme(remembered((storage) => storage.getItem("spar-bench-theme")) ?? "");
theme.addEventListener("change", () => {
  setTheme(theme.value);
  remembered((storage) => storage.setItem("spar-bench-theme", theme.value));
});
theme.parentElement.hidden = false;
