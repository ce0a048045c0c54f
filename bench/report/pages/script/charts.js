// @ts-check
// Charts of measures, each with a cursor at the scale of the slider.

const WIDE = 360, HIGH = 230, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 36;

/**
 * @param {number[]} values @param {string} wanted @param {number} from @param {number} to
 * @returns {{at: (v: number) => number, ticks: number[]}}
 */
function makeScale(values, wanted, from, to) {
  let low = Math.min(...values), high = Math.max(...values);
  const log = low > 0 && wanted !== "linear"
    && (wanted === "log" ? high > low : Math.log10(high / low) > DECADES);
  /** @param {number} v */
  const bent = (v) => log ? Math.log10(v) : v;
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const pad = (bent(high) - bent(low)) * 0.04;
  const [a, b] = [bent(low) - pad, bent(high) + pad];
  /** @param {number} v */
  const at = (v) => log && v <= 0 ? from : from + (to - from) * (bent(v) - a) / (b - a);
  const ticks = [];
  if (log) {
    const decades = b - a;
    for (let e = Math.floor(a); e <= Math.ceil(b); e += Math.max(1, Math.round(decades / 5))) {
      for (const step of decades < 2.5 ? [1, 2, 5] : [1]) ticks.push(step * 10 ** e);
    }
  } else {
    const rough = (b - a) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough) ?? rough;
    for (let k = Math.ceil(a / step); k * step <= b && ticks.length < 20; k++) ticks.push(Number((k * step).toPrecision(12)));
  }
  return { at, ticks: ticks.filter((t) => bent(t) >= a && bent(t) <= b) };
}

/** @param {string} mark @param {number} x @param {number} y @param {number} r the path of a marker */
function marker(mark, x, y, r) {
  /** @param {number[][]} corners */
  const shape = (corners) =>
    `M${corners.map(([u, v]) => `${(x + u * r).toFixed(1)} ${(y + v * r).toFixed(1)}`).join("L")}Z`;
  /** @param {number} count @param {number} out @param {number} every second corner's distance */
  const ring = (count, out, every = out) => [...Array(count).keys()].map((k) => {
    const turn = Math.PI * (2 * k / count - 0.5), far = k % 2 ? every : out;
    return [far * Math.cos(turn), far * Math.sin(turn)];
  });
  switch (mark) {
    case "square": return shape([[-1, -1], [1, -1], [1, 1], [-1, 1]]);
    case "diamond": return shape([[0, -1.4], [1.4, 0], [0, 1.4], [-1.4, 0]]);
    case "triangle": return shape([[0, -1.3], [1.2, 1], [-1.2, 1]]);
    case "down": return shape([[0, 1.3], [1.2, -1], [-1.2, -1]]);
    case "left": return shape([[-1.3, 0], [1, -1.2], [1, 1.2]]);
    case "right": return shape([[1.3, 0], [-1, -1.2], [-1, 1.2]]);
    case "pentagon": return shape(ring(5, 1.3));
    case "hexagon": return shape(ring(6, 1.25));
    case "plus": return shape([[-0.4, -1.4], [0.4, -1.4], [0.4, -0.4], [1.4, -0.4], [1.4, 0.4],
      [0.4, 0.4], [0.4, 1.4], [-0.4, 1.4], [-0.4, 0.4], [-1.4, 0.4], [-1.4, -0.4], [-0.4, -0.4]]);
    case "cross": return shape([[-1.2, -0.6], [-0.6, -1.2], [0, -0.6], [0.6, -1.2], [1.2, -0.6],
      [0.6, 0], [1.2, 0.6], [0.6, 1.2], [0, 0.6], [-0.6, 1.2], [-1.2, 0.6], [-0.6, 0]]);
    case "bow": return shape([[-1.3, -1], [1.3, 1], [1.3, -1], [-1.3, 1]]);
    case "hourglass": return shape([[-1, -1.3], [1, -1.3], [-1, 1.3], [1, 1.3]]);
    case "star": return shape(ring(10, 1.5, 0.6));
    default: return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

/** @param {Point[][]} found @returns {boolean} whether one line would flatten all others */
function flattened(found) {
  /** @param {Point[][]} some */
  const extent = (some) => {
    const values = some.flat().map((p) => p.y);
    return Math.max(...values) - Math.min(...values);
  };
  const known = found.filter((points) => points.length).sort((a, b) => extent([a]) - extent([b]));
  const rest = known.slice(0, -1);
  return rest.length > 0 && extent(rest) > 0 && extent(rest) < extent(known) / 8;
}

/** @param {Line} line */
const colour = (line) => `--c:${line.look[0]};--d:${line.look[1]}`;

/** @param {Line} line the class of its width, and the radius of its markers */
const size = (line) => ({ name: `size-${line.look[4] % 3}`, r: [2.4, 3.4, 4.4][line.look[4] % 3] });

/** @param {Line} line @returns {SVGElement} a piece of the line, for legends */
function swatch(line) {
  return make("svg:svg", { viewBox: "0 0 30 12", class: `swatch ${size(line).name}`, style: colour(line), "aria-hidden": "true" },
    make("svg:path", { d: "M1 6H29", class: "line", "stroke-dasharray": line.look[3] }),
    make("svg:path", { d: marker(line.look[2], 15, 6, size(line).r), class: "mark" }));
}

/** @param {Axis} x @param {Axis} y @returns {Point[][]} the points of every picked line */
function pointsOf(x, y) {
  return [...state.lines].map((line) => line.cells.flatMap((_, i) => {
    const a = x.of(line, i), b = y.of(line, i);
    return a && b ? [{ line, i, x: a[0], y: b[0], low: b[1], high: b[2], by: b[5] }] : [];
  }));
}

/**
 * The rules at the ends of their lines, none over another.
 * @param {Point[][]} found @param {(x: number) => number} ax @param {(y: number) => number} ay
 */
function ruleNames(found, ax, ay) {
  const ends = found.flatMap((points) => points.at(-1) ?? []).filter((p) => p.line.rule)
    .sort((p, q) => ay(p.y) - ay(q.y));
  let last = TOP;
  return ends.map((p) => {
    last = Math.max(last + 12, Math.min(ay(p.y) - 5, HIGH - BOTTOM));
    const end = ax(p.x) > WIDE / 2;
    return make("svg:text", { class: `rule ${end ? "end" : ""}`, style: colour(p.line),
      x: ax(p.x) + (end ? -4 : 6), y: last }, p.line.rule);
  });
}

/**
 * A chart with a cursor, which `cursors` gets; with `front`, the best points of all are joined.
 * @param {string} id @param {Axis} x @param {Axis} y
 * @param {{floor?: Value|null, front?: boolean, guided?: boolean}} more
 */
function chart(id, x, y, more = {}) {
  const found = pointsOf(x, y), every = found.flat();
  const head = `${y.name} against ${x.short ?? x.name}`;
  const box = make("figure", { class: "chart", id: `chart-${id}` }, make("figcaption", {}, head));
  if (!every.length) {
    box.append(make("p", { class: "empty" }, "None of the chosen lines has values here."));
    return box;
  }
  const ends = every.flatMap((p) => p.by ? Object.values(p.by) : [p.low, p.high])
    .filter((v) => v != null && (every.some((p) => p.y <= 0) || v > 0));
  const floor = more.floor && !state.relative ? [more.floor[0]] : [];
  const sx = makeScale(every.map((p) => p.x), x.scale, LEFT, WIDE - RIGHT);
  const means = [...every.map((p) => p.y), ...floor];
  const least = Math.min(...means);
  // The end of an interval near 0 must not flatten a logarithmic axis.
  const inside = ends.map(Number).map((v) => least > 0 ? Math.max(v, least / 2) : v);
  const sy = makeScale([...means, ...inside], y.scale === "auto" && flattened(found) ? "log" : y.scale,
    HIGH - BOTTOM, TOP);
  const svg = make("svg:svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img",
    "aria-label": `${head}: ${found.filter((f) => f.length).length} lines` });
  for (const t of sx.ticks) {
    svg.append(make("svg:path", { class: "grid", d: `M${sx.at(t)} ${TOP}V${HIGH - BOTTOM}` }),
      make("svg:text", { x: sx.at(t), y: HIGH - BOTTOM + 14, class: "tick middle" }, (x.show ?? short)(t)));
  }
  for (const t of sy.ticks) {
    svg.append(make("svg:path", { class: "grid", d: `M${LEFT} ${sy.at(t)}H${WIDE - RIGHT}` }),
      make("svg:text", { x: LEFT - 5, y: sy.at(t) + 3.5, class: "tick end" }, short(t)));
  }
  svg.append(make("svg:text", { x: (LEFT + WIDE - RIGHT) / 2, y: HIGH - 5, class: "tick middle" }, x.name));
  for (const f of floor) {
    svg.append(make("svg:path", { class: "floor-line", d: `M${LEFT} ${sy.at(f)}H${WIDE - RIGHT}` },
      make("svg:title", {}, `real against real: ${short(f)}`)));
  }
  for (const points of found) {
    if (!points.length) continue;
    const { line } = points[0], group = make("svg:g", { style: colour(line), class: size(line).name });
    if (more.guided) {
      const sure = points.filter((p) => !p.by && p.low != null && p.high != null);
      for (const k of new Set(points.flatMap((p) => Object.keys(p.by ?? {})))) {
        const some = points.filter((p) => p.by && k in p.by);
        group.append(make("svg:path", { class: "seed", d: `M${some.map((p) =>
          `${sx.at(p.x).toFixed(1)} ${sy.at(Number(p.by?.[k])).toFixed(1)}`).join("L")}` }));
      }
      /** @param {Point} p @param {"low"|"high"} key the height of an end of its interval */
      const end = (p, key) => Math.min(Math.max(sy.at(Number(p[key])), TOP), HIGH - BOTTOM).toFixed(1);
      /** @param {Point} p */
      const place = (p) => sx.at(p.x).toFixed(1);
      if (sure.length && state.x === "g") {
        const edge = [...sure.map((p) => `${place(p)} ${end(p, "high")}`),
          ...[...sure].reverse().map((p) => `${place(p)} ${end(p, "low")}`)];
        group.append(make("svg:path", { class: "band", d: `M${edge.join("L")}Z` }));
      } else {
        const bars = sure.map((p) => `M${place(p)} ${end(p, "low")}V${end(p, "high")}`);
        group.append(make("svg:path", { class: "bar", d: bars.join("") }));
      }
    }
    group.append(make("svg:path", { class: "line", "stroke-dasharray": line.look[3],
      d: `M${points.map((p) => `${sx.at(p.x).toFixed(1)} ${sy.at(p.y).toFixed(1)}`).join("L")}` }));
    for (const p of points) {
      group.append(make("svg:path", { class: "mark", d: marker(line.look[2], sx.at(p.x), sy.at(p.y), size(line).r) },
        make("svg:title", {}, `${line.label}, ${named(state.set.scales[p.i])}: ${short(p.y)}`)));
    }
    svg.append(group);
  }
  svg.append(...ruleNames(found, sx.at, sy.at));
  if (more.front) {
    const best = every.filter((p) => !every.some((q) => q.x >= p.x && q.y >= p.y && (q.x > p.x || q.y > p.y)))
      .sort((p, q) => p.x - q.x);
    svg.append(make("svg:path", { class: "front",
      d: `M${best.map((p) => `${sx.at(p.x).toFixed(1)} ${sy.at(p.y).toFixed(1)}`).join("L")}` },
      make("svg:title", {}, "front: no point of these lines is better in both")));
  }
  const rule = make("svg:path", { class: "cursor" }), rings = make("svg:g", {});
  svg.append(rule, rings);
  cursors.push(() => {
    if (more.guided && state.x === "g") {
      const at = sx.at(state.set.scales[state.at]);
      rule.setAttribute("d", `M${at.toFixed(1)} ${TOP}V${HIGH - BOTTOM}`);
    }
    rings.replaceChildren(...every.filter((p) => p.i === state.at).map((p) => make("svg:path", {
      class: "ring", style: colour(p.line), d: marker(p.line.look[2], sx.at(p.x), sy.at(p.y), size(p.line).r + 2) })));
  });
  if (more.guided && state.x === "g") {
    /** @param {PointerEvent} event */
    const drag = (event) => {
      if (event.type === "pointermove" && !(event.buttons & 1)) return;
      const across = svg.getBoundingClientRect();
      const place = (event.clientX - across.left) / across.width * WIDE;
      const gaps = state.set.scales.map((g) => Math.abs(sx.at(g) - place));
      moveTo(gaps.indexOf(Math.min(...gaps)));
    };
    svg.addEventListener("pointerdown", drag);
    svg.addEventListener("pointermove", drag);
    svg.classList.add("drag");
  }
  box.append(svg);
  return box;
}

function drawCharts() {
  const { set, measure } = state, x = across();
  const own = set.measures[measure].title.slice(set.measures[measure].label.length);
  const pair = set.pairs.find(([p]) => set.measures[p].title.endsWith(own)) ?? set.pairs[0];
  const shown = [...new Set([measure, ...(pair ?? [])])];
  cursors = [];
  const charts = shown.map((m, k) => chart(String(k), x, measureAxis(m),
    { guided: true, floor: set.measures[m].floor }));
  if (pair) {
    const [p, r] = pair;
    charts.push(chart("front", measureAxis(r), measureAxis(p), { front: !state.relative }));
  }
  byId("charts").replaceChildren(...charts);
  byId("legend").replaceChildren(...[...state.lines].map((line) =>
    make("li", {}, swatch(line), line.label)));
}

function moveCursors() {
  for (const move of cursors) move();
}
