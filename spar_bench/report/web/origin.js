// Where a number comes from, in a dialog: its runs, their stages, weights, and lines of the spec.

const dialog = document.getElementById("origin");

const when = (ms) => `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
const code = (text) => make("code", {}, text);

/** Return a list of terms, without those that are not known. */
function terms(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", {}, ...known.map(([name, value]) => make("div", {},
    make("dt", {}, name), make("dd", {}, ...(Array.isArray(value) ? value : [String(value)])))));
}

/** Count the rows that each stage's numbers are in, so that reuse can be told. */
const uses = new Map();
for (const row of data.origins.rows ?? []) {
  for (const key of new Set(Object.values(row.stages))) uses.set(key, (uses.get(key) ?? 0) + 1);
}

function madeOf(stage) {
  const { made } = stage;
  const took = made.seconds === null ? "" : ` in ${short(made.seconds)} s`;
  const where = made.host ? `${made.device} (${made.host})` : made.device;
  const pairs = [["made", made.ended_ms ? `${when(made.ended_ms)}${took} on ${where}` : null]];
  pairs.push(["commit", made.commit ? [code(made.commit)] : "not known"]);
  const versions = Object.entries(made.versions ?? {}).map((pair) => pair.join(" "));
  pairs.push(["versions", versions.join(", ")]);
  return pairs;
}

/** Return the checksums of the weights that a stage read or trained. */
function weightsOf(stage) {
  const read = data.origins.backbones[stage.backbone];
  const listed = (title, files) => Object.entries(files ?? {}).map(([name, sum]) =>
    [title, [`${name}, SHA-256 `, code(sum)]]);
  return [...listed("trained", stage.files), ...listed(`read ${read?.plugin}`, read?.files)];
}

/** Return a stage and, below it, those it was made from. */
function stageItem(role, key, seen) {
  const stage = data.origins.stages[key];
  const title = [make("strong", {}, stage?.kind ?? role), " ", code(key.slice(0, 12))];
  if (!stage) return make("li", {}, ...title, " has no record of how it was made");
  if (seen.has(key)) return make("li", {}, ...title, " as above");
  seen.add(key);
  const rows = uses.get(key) ?? 0;
  const shared = rows > 1 ? `made once and reused: ${rows} rows of this report are of it` : null;
  const inputs = Object.entries(stage.inputs);
  return make("li", {}, ...title,
    terms([["version", stage.version], ...madeOf(stage), ["use", shared], ...weightsOf(stage)]),
    ...(inputs.length
      ? [make("ul", {}, ...inputs.map(([name, input]) => stageItem(name, input, seen)))]
      : []));
}

/** Return a run's id with a link to it, which is asked for nothing before it is followed. */
function runOf({ id, url, command }) {
  const link = make("a", { href: url, target: "_blank", rel: "noreferrer" }, "open in MLflow");
  return [code(id), " ", link, ...(command ? [", which ", code(command), " serves there"] : [])];
}

/** Return what is known of one row's number. */
function rowSection(row, column, seen) {
  const value = (name) => valueOf(row, name);
  const { stages, reason, run } = data.origins.rows[row];
  const role = data.origins.roles[column];
  const place = `${value("method")} on ${value("dataset")} at ${value("eval_short_side_px")} px`;
  const name = `${value("experiment")}/${value("trial")}`;
  const key = stages[role];
  return make("section", {},
    make("h3", { dir: "auto" }, value("trial")),
    terms([
      ["what", place],
      [column, value(column)],
      ["seed", value("seed")],
      ["status", value("status")],
      ["remark", reason],
      ["protocol", value("protocol")],
      ["type", value("dtype")],
      ["device", role === "latency" ? value("device") : null],
      ["timing", role === "latency" ? value("latency_note") : null],
      ["trace", [code(`spar-bench explain '${name}'`)]],
      ["MLflow run", run && runOf(run)],
    ]),
    key ? make("ul", { class: "stages" }, stageItem(role, key, seen)) : "");
}

/** Return the spec of the experiment that rows are of. */
const specTextOf = (rows) => data.origins.specs[valueOf(rows[0], "experiment")] ?? "";

/** Return the spec's text, with the lines marked that decide what was swept. */
function specOf(rows) {
  const marked = new Set(rows.flatMap((row) => data.origins.rows[row].lines));
  const lines = specTextOf(rows).trimEnd().split("\n");
  const items = lines.map((line, at) => make("li", {},
    marked.has(at + 1) ? make("mark", {}, line) : line));
  const named = [...marked].sort((a, b) => a - b).join(", ");
  const title = named ? `Spec, swept in line ${named}` : "Spec";
  return make("details", { open: marked.size > 0 },
    make("summary", {}, title),
    make("pre", { tabindex: 0, "aria-label": "Text of the spec" }, make("ol", {}, ...items)));
}

function openOrigin(element) {
  const { column, rows } = sourceOf(element);
  const shown = element.dataset.title ?? linesOf(element)[0];
  const seen = new Set();
  const close = make("button", { type: "button", class: "close" }, "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(
    make("header", {}, make("h2", { id: "origin-title" }, shown), close),
    ...rows.map((row) => rowSection(row, column, seen)),
    ...(specTextOf(rows) ? [specOf(rows)] : []),
  );
  hideTip();
  dialog.showModal();
  dialog.querySelector("mark")?.scrollIntoView({ block: "center" });
  dialog.scrollTop = 0;
}

document.addEventListener("click", (event) => {
  const element = event.target.closest?.("[data-source]");
  if (element) openOrigin(element);
  if (event.target === dialog) dialog.close(); // its backdrop
});
document.addEventListener("keydown", (event) => {
  const isButton = event.target.matches?.("g[data-source]");
  if (!isButton || (event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  openOrigin(event.target);
});
