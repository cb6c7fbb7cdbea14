// The chart: accuracy against a cost that the reader chooses, with the Pareto front.

const SHAPES = { // of radius 1, by matplotlib's name of the marker
  s: "M-.9-.9H.9V.9H-.9Z",
  D: "M0-1.25 1.25 0 0 1.25-1.25 0Z",
  "^": "M0-1.2 1.1.9H-1.1Z",
  v: "M0 1.2 1.1-.9H-1.1Z",
  P: "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
  p: "M0-1.15 1.1-.35.68.95H-.68L-1.1-.35Z",
  X: "M-.5-1.1 0-.6.5-1.1 1.1-.5.6 0 1.1.5.5 1.1 0 .6-.5 1.1-1.1.5-.6 0-1.1-.5Z",
  h: "M0-1.15 1-.58V.58L0 1.15-1 .58V-.58Z",
  o: "M-1.05 0A1.05 1.05 0 1 1 1.05 0 1.05 1.05 0 1 1-1.05 0Z",
};
const RADIUS = 5.5;
const MARGIN = { top: 14, right: 18, bottom: 46, left: 50 };
const MOST_LABELS = 18;

function mark(point, x, y, attributes = {}) {
  const shape = draw("path", { d: SHAPES[point.marker] ?? SHAPES.o, class: "mark" });
  shape.setAttribute("transform", `translate(${x} ${y}) scale(${RADIUS})`);
  const group = draw("g", attributes, shape);
  group.style.setProperty("--mark", point.color); // a style attribute would need a looser policy
  return group;
}

/** Return steps of 1, 2 or 5 times a power of ten, about `count` from low to high. */
function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough));
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, n) => (first + n) * step);
}

function logTicks(low, high, count) {
  const found = (factors) => {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
      ticks.push(...factors.map((factor) => factor * 10 ** power));
    }
    return ticks.filter((tick) => tick >= low && tick <= high);
  };
  const choices = [[1, 2, 5], [1, 3], [1]].map(found);
  const best = choices.find((ticks) => ticks.length <= count) ?? choices.at(-1);
  return best.length > 1 ? best : linearTicks(low, high, 4);
}

/** Return a function from values to pixels, with the ticks of its axis. */
function scaleOf(values, from, to, isLog, [least, share]) {
  const place = isLog ? Math.log10 : (value) => value;
  const value = isLog ? (at) => 10 ** at : (at) => at;
  let [low, high] = [Math.min(...values.map(place)), Math.max(...values.map(place))];
  const room = Math.max(share * (high - low), (least - (high - low)) / 2) || 1; // all may be 0
  [low, high] = [low - room, high + room];
  if (!isLog) low = Math.max(low, 0);
  const scale = (one) => from + ((place(one) - low) / (high - low)) * (to - from);
  const count = Math.max(3, Math.abs(to - from) / (isLog ? 60 : 70));
  scale.ticks = (isLog ? logTicks : linearTicks)(value(low), value(high), count);
  return scale;
}

/** Return the points that no other beats in both, from cheap to expensive. */
function paretoFront(points, column) {
  const ordered = [...points].sort((a, b) => a.costs[column] - b.costs[column] || b.miou - a.miou);
  let best = -Infinity;
  return ordered.filter((point) => point.miou > best && (best = point.miou) !== null);
}

/** Return the conditions of a point that a number on this axis depends on. */
const conditionsOf = (point, axis) => axis.conditions.map((name) => point.conditions[name]);

/** Return the conditions that most points have, which the others may not be compared with. */
function commonConditions(points, axis) {
  const counts = new Map();
  for (const point of points) {
    const key = JSON.stringify(conditionsOf(point, axis));
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const [[key]] = [...counts].sort((a, b) => b[1] - a[1]);
  return JSON.parse(key);
}

/** Say in which conditions points differ from most. */
function noteOf(odd, axis, common) {
  const parts = axis.conditions.flatMap((name, at) => {
    const others = odd.map((point) => point.conditions[name]).filter((one) => one !== common[at]);
    return others.length ? [`${name} ${[...new Set(others)].join(" or ")}, not ${common[at]}`] : [];
  });
  return `Hollow, and not compared with the others: ${parts.join("; ")}.`;
}

class ChartView {
  constructor(box, { axes, points }) {
    Object.assign(this, { box, axes, points });
    this.panels = [...new Set(points.map((point) => point.panel))];
    this.form = this.controls();
    this.drawing = draw("svg", { role: "group", "aria-label": "Accuracy against cost" });
    this.legend = make("ul", { class: "legend" });
    this.note = make("p", { class: "note", "aria-live": "polite" });
    box.replaceChildren(this.form, this.drawing, this.legend, this.note);
    this.form.addEventListener("change", () => this.update());
    this.drawing.addEventListener("keydown", (event) => this.move(event));
    filterListeners.push(() => this.follow());
    new ResizeObserver(() => this.update()).observe(box);
  }

  controls() {
    const radios = (legend, name, choices) => make("fieldset", { hidden: choices.length < 2 },
      make("legend", {}, legend),
      ...choices.map(([value, title], at) => make("label", {},
        make("input", { type: "radio", name, value, checked: at === 0 }), ` ${title}`)));
    const select = make("select", { name: "panel" },
      ...this.panels.map((panel, at) => make("option", { value: at }, panel)));
    const form = make("form", { class: "controls", "aria-label": "Axes of the chart" },
      make("label", { hidden: this.panels.length < 2 }, "Data set ", select),
      radios("Cost", "axis", this.axes.map((axis, at) => [at, axis.title])),
      radios("Scale", "scale", [["log", "logarithmic"], ["linear", "linear"]]));
    form.addEventListener("submit", (event) => event.preventDefault());
    return form;
  }

  /** Offer the panels of the data set that the page's filter asks for, and show one of them. */
  follow() {
    const dataset = form.elements.dataset.value;
    const own = new Set(this.points.filter((point) => point.dataset === dataset)
      .map((point) => point.panel));
    const select = this.form.elements.panel;
    const options = [...select.options];
    for (const option of options) {
      option.disabled = own.size > 0 && !own.has(this.panels[option.value]);
    }
    if (select.selectedOptions[0].disabled) {
      select.value = options.find((option) => !option.disabled).value;
    }
    this.update();
  }

  /** Return the axis, the panel's points that have a cost on it, and how many have none. */
  chosen() {
    const axis = this.axes[this.form.elements.axis.value];
    const isLog = this.form.elements.scale.value === "log";
    const method = form?.elements.method.value;
    const panel = this.panels[this.form.elements.panel.value];
    const own = this.points.filter((point) => point.panel === panel &&
      (!method || point.method === method));
    const points = own.filter(({ costs }) => (isLog ? costs[axis.column] > 0
      : costs[axis.column] !== undefined));
    return { axis, isLog, points, without: own.length - points.length };
  }

  update() {
    const { axis, isLog, points, without } = this.chosen();
    const width = Math.max(260, this.box.clientWidth);
    const height = Math.round(Math.min(460, Math.max(290, 0.52 * width)));
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const focused = this.drawing.contains(document.activeElement)
      ? document.activeElement.getAttribute("aria-label") : null;
    this.drawing.replaceChildren();
    this.legend.replaceChildren();
    this.note.textContent = points.length ? "" : "No point has this cost with this choice.";
    if (!points.length) return;
    const common = commonConditions(points, axis);
    const isOdd = (point) => conditionsOf(point, axis).some((one, at) => one !== common[at]);
    const column = axis.column;
    const costs = points.map((point) => point.costs[column]);
    const x = scaleOf(costs, MARGIN.left, width - MARGIN.right, isLog,
      isLog ? [0.6, 0.12] : [0.2 * Math.max(...costs), 0.08]);
    const y = scaleOf(points.flatMap((point) => [-1, 1].map((sign) =>
      100 * (point.miou + sign * (point.sd ?? 0)))), height - MARGIN.bottom, MARGIN.top,
    false, [5, 0.12]);
    const like = points.filter((point) => !isOdd(point));
    const front = paretoFront(like, column);
    const at = (point) => [x(point.costs[column]), y(100 * point.miou)];
    this.drawing.append(this.axesOf(axis, x, y, width, height), ...this.linesOf(points, front, at));
    const marks = points.map((point) => this.markOf(point, at(point), y, axis, isOdd(point)));
    this.drawing.append(...marks);
    const lines = this.drawing.querySelectorAll(".front, .line, .sd");
    const named = points.length > MOST_LABELS ? front : points;
    this.drawing.append(...labelsOf(named, points.map(at), [...lines].flatMap(dotsOn), at, width));
    const inOrder = points.map((point, n) => [at(point)[0], marks[n]]).sort((a, b) => a[0] - b[0]);
    this.move = rove([inOrder.map(([, element]) => element)]);
    marks.find((each) => each.getAttribute("aria-label") === focused)?.focus();
    this.explain(points, front);
    const odd = points.filter(isOdd);
    const notes = odd.length ? [noteOf(odd, axis, common)] : [];
    if (without) notes.push(`${without} without this cost are not shown.`);
    this.note.textContent = notes.join(" ");
  }

  axesOf(axis, x, y, width, height) {
    const [bottom, right] = [height - MARGIN.bottom, width - MARGIN.right];
    const group = draw("g", { class: "axes", "aria-hidden": true });
    for (const tick of y.ticks) {
      group.append(draw("path", { d: `M${MARGIN.left} ${y(tick)}H${right}`, class: "grid" }));
      const text = Number(tick.toPrecision(6));
      group.append(draw("text", { x: MARGIN.left - 8, y: y(tick) + 4, class: "end" }, `${text}`));
    }
    for (const tick of x.ticks) {
      group.append(draw("path", { d: `M${x(tick)} ${bottom}v5`, class: "axis" }));
      const text = Number(tick.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 });
      group.append(draw("text", { x: x(tick), y: bottom + 18, class: "middle" }, text));
    }
    group.append(
      draw("path", { d: `M${MARGIN.left} ${bottom}H${right}`, class: "axis" }),
      draw("text", { x: (MARGIN.left + right) / 2, y: height - 6, class: "middle title" },
        axis.title),
      draw("text", { class: "middle title", transform:
        `translate(13 ${(MARGIN.top + bottom) / 2}) rotate(-90)` }, "mIoU (%)"),
    );
    return group;
  }

  /** Return the front, level until a more expensive point is better, and lines through strides. */
  linesOf(points, front, at) {
    const corners = front.map(at).map(([x, y], n) => (n ? `H${x}V${y}` : `M${x} ${y}`));
    const found = [draw("path", { d: corners.join(""), class: "front" })];
    for (const line of new Set(points.map((point) => point.line))) {
      const own = points.filter((point) => line !== null && point.line === line);
      if (own.length < 2) continue;
      const path = draw("path", { d: `M${own.map((p) => at(p).join(" ")).join("L")}`, class: "line" });
      path.style.setProperty("--mark", own[0].color);
      found.push(path);
    }
    return found;
  }

  markOf(point, [x, y], scale, axis, isOdd) {
    const cost = short(point.costs[axis.column]);
    const spread = point.sd === null ? "" : ` ± ${percent(point.sd)} (n = ${point.n})`;
    const lines = [point.name, `mIoU ${percent(point.miou)} %${spread}`, `${axis.title}: ${cost}`];
    if (isOdd) lines.push(conditionsOf(point, axis).join(", "));
    const group = mark(point, x, y, {
      class: isOdd ? "point hollow" : "point", role: "button", "aria-label": lines.join(", "),
      "data-source": `${point.source.column}:${point.source.rows.join(" ")}`,
      "data-title": `${point.name}: mIoU ${percent(point.miou)} %`,
    });
    if (point.sd !== null) {
      const [top, bottom] = [1, -1].map((sign) => scale(100 * (point.miou + sign * point.sd)));
      group.prepend(draw("path", { d: `M${x} ${top}V${bottom}`, class: "sd" }));
    }
    group.append(draw("circle", { cx: x, cy: y, r: 2.2 * RADIUS, class: "halo" }));
    tips.set(group, () => lines);
    return group;
  }

  explain(points, front) {
    const entries = new Map(points.map((point) => [`${point.series} ${point.marker}`, point]));
    for (const point of entries.values()) {
      const sample = draw("svg", { viewBox: "0 0 16 16", "aria-hidden": true }, mark(point, 8, 8));
      this.legend.append(make("li", {}, sample, point.series));
    }
    if (front.length > 1) {
      const line = draw("path", { d: "M0 8H24", class: "front" });
      const sample = draw("svg", { viewBox: "0 0 24 16", "aria-hidden": true }, line);
      this.legend.append(make("li", {}, sample, "Pareto front"));
    }
  }
}

/** Return boxes along a path. */
function dotsOn(path) {
  const count = Math.ceil(path.getTotalLength() / 6);
  return Array.from({ length: count }, (_, n) => {
    const { x, y } = path.getPointAtLength(6 * n);
    return [x - 1, y - 1, x + 1, y + 1];
  });
}

/** Return labels beside their points, without those that would lie on a point or a label. */
function labelsOf(named, marks, lines, at, width) {
  const taken = marks.map(([x, y]) => [x - 7, y - 7, x + 7, y + 7]);
  const isFree = (others) => ([left, top, right, bottom]) =>
    left > MARGIN.left && right < width - 4 && top > 2 && others.every((box) =>
      left > box[2] || right < box[0] || top > box[3] || bottom < box[1]);
  return named.flatMap((point) => {
    const [x, y] = at(point);
    const text = point.name.length > 34 ? `${point.name.slice(0, 33)}…` : point.name;
    const reach = 6.4 * text.length;
    const [before, middle, after] = [x - 8 - reach, x - reach / 2, x + 8];
    const [above, level, below] = [y - 21, y - 6, y + 9];
    const places = [[before, above], [middle, above], [after + 2, level], [before - 2, level],
      [after, below], [middle, below], [after, above], [before, below]];
    const boxes = places.map(([left, top]) => [left, top, left + reach, top + 13]);
    const box = boxes.find(isFree([...taken, ...lines])) ?? boxes.find(isFree(taken));
    if (!box) return [];
    taken.push(box);
    const where = { x: box[0] + reach / 2, y: box[1] + 10 };
    return [draw("text", { ...where, class: "middle label", "aria-hidden": true }, text)];
  });
}

for (const box of document.querySelectorAll("[data-chart]")) {
  new ChartView(box, data.charts[box.dataset.chart]);
}
