// @ts-check
// What can be chosen, the slider, and the state in the address.

/** @param {any} select @param {[string, string][]} options value and text */
function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
}

function drawChoices() {
  const { set } = state;
  fill(byId("data"), sets.map((s, k) => [String(k), s.name]));
  fill(byId("measure"), set.measures.map((m, k) => [String(k), `${m.title} ${m.arrow}`.trim()]));
  /** @param {boolean} strength @returns {[string, string][]} */
  const measures = (strength) => set.measures.filter((m) => m.strength === strength).map((m) => [m.id, m.title]);
  fill(byId("x"), [["g", "guidance g"], ...measures(true), ["nfe", "NFE"], ["s", "time per image"],
    ...measures(false)]);
  for (const id of ["a", "b"]) {
    fill(byId(id), [["", "none"], ...set.lines.map((l) => /** @type {[string, string]} */ ([l.id, l.label]))]);
  }
  byId("relative").disabled = set.cfg < 0 && set.lines.every((line) => line.base < 0);
  byId("scale").max = String(set.scales.length - 1);
  byId("scale").disabled = set.scales.length < 2;
  byId("ticks").replaceChildren(...set.scales.map((_, k) => make("option", { value: k })));
  /** @param {string} name @param {(line: Line) => boolean} member a button for several lines */
  const several = (name, member) => make("button", { type: "button", onclick: () => {
    const some = set.lines.filter(member), on = some.some((line) => !state.lines.has(line));
    for (const line of some) on ? state.lines.add(line) : state.lines.delete(line);
    show();
  } }, name);
  const rules = [...new Set(set.lines.map((line) => line.rule))].filter(Boolean);
  const methods = [...new Set(set.lines.map((line) => line.method))];
  byId("several").replaceChildren("methods: ", ...methods.map((name) => several(name, (l) => l.method === name)),
    ...(rules.length ? [" rules: ", ...rules.map((name) => several(name, (l) => l.rule === name))] : []));
  byId("lines").replaceChildren(...set.lines.map((line) => make("label", {},
    make("input", { type: "checkbox", value: line.id, onchange: (/** @type {any} */ event) => {
      if (event.target.checked) state.lines.add(line);
      else state.lines.delete(line);
      show();
    } }), swatch(line), line.label)));
}

function showChoices() {
  const { set } = state;
  byId("data").value = String(sets.indexOf(set));
  byId("measure").value = String(state.measure);
  byId("x").value = state.x;
  byId("a").value = state.a?.id ?? "";
  byId("b").value = state.b?.id ?? "";
  byId("relative").checked = state.relative;
  for (const box of byId("lines").querySelectorAll("input")) {
    box.checked = [...state.lines].some((line) => line.id === box.value);
  }
  byId("count").textContent = `${state.lines.size} of ${set.lines.length}`;
}

function writeHash() {
  const { set } = state;
  const found = new URLSearchParams({ data: set.name, g: String(set.scales[state.at]),
    measure: set.measures[state.measure].id, x: state.x,
    lines: [...state.lines].map((line) => line.id).join(",") });
  if (state.a) found.set("a", state.a.id);
  if (state.b) found.set("b", state.b.id);
  if (state.relative) found.set("relative", "1");
  history.replaceState(null, "", `#${found}`);
}

/** @param {DataSet} set start with its lines and measure, at the scale next to `g` */
function choose(set, g = 1) {
  const gaps = set.scales.map((scale) => Math.abs(scale - g));
  Object.assign(state, { set, at: gaps.indexOf(Math.min(...gaps)), measure: set.lead, x: "g", a: null, b: null,
    relative: false, lines: new Set(set.lines.filter((line) => line.picked)) });
  drawChoices();
}

/** @returns {boolean} whether the hash of the address had a state */
function readHash() {
  const found = new URLSearchParams(location.hash.slice(1));
  const set = sets.find((s) => s.name === found.get("data"));
  if (!set) return false;
  choose(set, Number(found.get("g") ?? 1) || 0);
  const measure = set.measures.findIndex((m) => m.id === found.get("measure"));
  if (measure >= 0) state.measure = measure;
  const x = found.get("x") ?? "g";
  if (["g", "nfe", "s"].includes(x) || set.measures.some((m) => m.id === x)) state.x = x;
  const ids = found.get("lines")?.split(",");
  if (ids) state.lines = new Set(set.lines.filter((line) => ids.includes(line.id)));
  for (const key of /** @type {("a"|"b")[]} */ (["a", "b"])) {
    state[key] = set.lines.find((line) => line.id === found.get(key)) ?? null;
  }
  state.relative = found.get("relative") === "1" && !byId("relative").disabled;
  return true;
}

/** What depends on the guidance scale. */
function move() {
  const slider = byId("scale"), g = named(state.set.scales[state.at]);
  slider.value = String(state.at);
  slider.setAttribute("aria-valuetext", g);
  byId("g").textContent = g;
  moveCursors();
  drawPictures();
  drawTable();
  writeHash();
}

/** @param {number} at */
function moveTo(at) {
  if (at === state.at) return;
  state.at = at;
  move();
}

function show() {
  // In the order of the data set, whichever was picked first.
  state.lines = new Set(state.set.lines.filter((line) => state.lines.has(line)));
  showChoices();
  drawCharts();
  move();
}

let timer = 0;

function pause() {
  clearInterval(timer);
  timer = 0;
  byId("play").textContent = "Play";
}

function play() {
  if (timer) return pause();
  byId("play").textContent = "Stop";
  timer = setInterval(() => moveTo((state.at + 1) % state.set.scales.length), PAUSE);
}

/** @param {string} id @param {(target: any) => void} change */
function on(id, change) {
  byId(id).addEventListener("change", (/** @type {any} */ event) => {
    change(event.target);
    show();
  });
}

on("data", (target) => choose(sets[Number(target.value)], state.set.scales[state.at]));
on("measure", (target) => { state.measure = Number(target.value); });
on("x", (target) => { state.x = target.value; });
on("a", (target) => { state.a = state.set.lines.find((line) => line.id === target.value) ?? null; });
on("b", (target) => { state.b = state.set.lines.find((line) => line.id === target.value) ?? null; });
on("relative", (target) => { state.relative = target.checked; });
byId("scale").addEventListener("input", (/** @type {any} */ event) => {
  if (timer) pause();
  moveTo(Number(event.target.value));
});
byId("play").addEventListener("click", play);
byId("copy-latex").addEventListener("click", () => copy(latex(), "LaTeX"));
byId("copy-csv").addEventListener("click", () => copy(csv(), "CSV"));
addEventListener("hashchange", () => { if (readHash()) show(); });
addEventListener("beforeprint", () => {
  for (const found of document.querySelectorAll("details:not([open])")) {
    found.setAttribute("open", "");
    found.classList.add("opened");
  }
});
addEventListener("afterprint", () => {
  for (const found of document.querySelectorAll("details.opened")) {
    found.removeAttribute("open");
    found.classList.remove("opened");
  }
});

byId("explore").hidden = false;
if (!readHash()) choose(sets[0]);
show();
