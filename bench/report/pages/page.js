// @ts-check
// The interactive part of a report: one slider of guidance that moves charts, samples and a table.
"use strict";
(() => {
  /** @typedef {[number, number|null, number|null, string, string]} Value mean, interval, texts */
  /** @typedef {{v?: (Value|null)[], nfe?: number, s?: number, why?: string, p?: number}} Cell */
  /** @typedef {{id: string, label: string, method: string, rule: string, picked: boolean,
   *    look: [string, string, string], base: number, cells: Cell[]}} Line */
  /** @typedef {{id: string, label: string, title: string, arrow: string, better: string,
   *    scale: string, ratios: boolean, headline: boolean, floor: Value|null}} Measure */
  /** @typedef {{means: any[][], std: number}} Target */
  /** @typedef {{png?: string, names?: string[], why?: string, edges?: number, target?: number,
   *    counts?: number[][], points?: number[][], note?: string}} Picture */
  /** @typedef {{name: string, scales: number[], measures: Measure[], lead: number, cfg: number,
   *    pairs: [number, number][], lines: Line[], kind: string, pictures: Picture[],
   *    edges?: number[][], targets?: Target[], frame?: number[]}} DataSet */
  /** @typedef {{name: string, short?: string, of: (line: Line, i: number) => Value|null, scale: string}} Axis */
  /** @typedef {{line: Line, i: number, x: number, y: number, low: number|null,
   *    high: number|null}} Point */

  const SVG = "http://www.w3.org/2000/svg";
  const DECADES = 1.5; // from here on an axis is logarithmic
  const PAUSE = 900; // milliseconds between scales when playing

  /** @param {string} id @returns {any} */
  const byId = (id) => document.getElementById(id);

  /**
   * An element of HTML or, for names such as "svg:path", of SVG. Text stays text.
   * @param {string} name @param {Record<string, any>} attributes @param {...any} children
   * @returns {any}
   */
  function make(name, attributes = {}, ...children) {
    const element = name.startsWith("svg:")
      ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }

  /** @type {DataSet[]} */
  const sets = JSON.parse(byId("cells").textContent).sets;
  /** @type {{set: DataSet, at: number, measure: number, x: string, relative: boolean,
   *    lines: Set<Line>, a: Line|null, b: Line|null}} */
  const state = { set: sets[0], at: 0, measure: 0, x: "g", relative: false, lines: new Set(), a: null, b: null };
  /** @type {(() => void)[]} one for every chart */
  let cursors = [];

  // ---- numbers ----

  /** @param {number} g */
  const named = (g) => `g = ${g}`;

  /** @param {number} value */
  function short(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  }

  /** @param {Line} line @returns {Line|null} the line under CFG that it is compared with */
  const cfgOf = (line) => state.set.lines[line.base >= 0 ? line.base : state.set.cfg] ?? null;

  /** @param {Line} line @param {number} i @param {number} m @returns {Value|null} */
  const absolute = (line, i, m) => line.cells[i].v?.[m] ?? null;

  /**
   * A value or, relative to CFG, its ratio or difference, which has no error here.
   * @param {Line} line @param {number} i @param {number} m @returns {Value|null}
   */
  function valueOf(line, i, m) {
    const own = absolute(line, i, m);
    if (!state.relative || !own) return own;
    const base = cfgOf(line);
    const other = base && absolute(base, i, m);
    if (!other) return null;
    const ratio = state.set.measures[m].ratios;
    const found = ratio ? own[0] / other[0] : own[0] - other[0];
    if (!Number.isFinite(found)) return null;
    return [found, null, null, `${ratio ? "× " : found > 0 ? "+" : ""}${short(found)}`, ""];
  }

  /** @param {number} number @returns {Value} */
  const exact = (number) => [number, number, number, short(number), ""];

  /** @param {number} m @returns {Axis} */
  function measureAxis(m) {
    const measure = state.set.measures[m];
    const how = state.relative ? (measure.ratios ? " / CFG" : " − CFG") : "";
    return {
      name: `${measure.label}${how} ${measure.arrow}`.trim(),
      scale: state.relative && !measure.ratios ? "linear" : measure.scale,
      of: (line, i) => valueOf(line, i, m),
    };
  }

  /** @returns {Axis} the chosen x-axis */
  function across() {
    const { scales, measures } = state.set;
    if (state.x === "nfe") {
      return { name: "network evaluations per image", scale: "auto",
        of: (line, i) => line.cells[i].nfe ? exact(Number(line.cells[i].nfe)) : null };
    }
    if (state.x === "s") {
      return { name: "seconds per image", scale: "auto",
        of: (line, i) => line.cells[i].s ? exact(Number(line.cells[i].s)) : null };
    }
    const m = measures.findIndex((measure) => measure.id === state.x);
    if (m >= 0) return measureAxis(m);
    return { name: "guidance g (1 = off)", short: "g", scale: "linear", of: (_, i) => exact(scales[i]) };
  }

  // ---- charts ----

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
      for (let k = Math.ceil(a / step); k * step <= b; k++) ticks.push(Number((k * step).toPrecision(12)));
    }
    return { at, ticks: ticks.filter((t) => bent(t) >= a && bent(t) <= b) };
  }

  /** @param {string} mark @param {number} x @param {number} y @param {number} r the path of a marker */
  function marker(mark, x, y, r) {
    /** @param {number[][]} corners */
    const shape = (corners) =>
      `M${corners.map(([u, v]) => `${(x + u * r).toFixed(1)} ${(y + v * r).toFixed(1)}`).join("L")}Z`;
    switch (mark) {
      case "square": return shape([[-1, -1], [1, -1], [1, 1], [-1, 1]]);
      case "diamond": return shape([[0, -1.4], [1.4, 0], [0, 1.4], [-1.4, 0]]);
      case "triangle": return shape([[0, -1.3], [1.2, 1], [-1.2, 1]]);
      case "down": return shape([[0, 1.3], [1.2, -1], [-1.2, -1]]);
      case "bar": return shape([[-0.5, -1.4], [0.5, -1.4], [0.5, 1.4], [-0.5, 1.4]]);
      case "plus": return shape([[-0.4, -1.4], [0.4, -1.4], [0.4, -0.4], [1.4, -0.4], [1.4, 0.4],
        [0.4, 0.4], [0.4, 1.4], [-0.4, 1.4], [-0.4, 0.4], [-1.4, 0.4], [-1.4, -0.4], [-0.4, -0.4]]);
      case "cross": return shape([[-1.2, -0.6], [-0.6, -1.2], [0, -0.6], [0.6, -1.2], [1.2, -0.6],
        [0.6, 0], [1.2, 0.6], [0.6, 1.2], [0, 0.6], [-0.6, 1.2], [-1.2, 0.6], [-0.6, 0]]);
      case "star": return shape([...Array(10).keys()].map((k) => {
        const out = k % 2 ? 0.6 : 1.5, turn = Math.PI * (k / 5 - 0.5);
        return [out * Math.cos(turn), out * Math.sin(turn)];
      }));
      default: return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
    }
  }

  /** @param {Line} line */
  const colour = (line) => `--c:${line.look[0]}`;

  /** @param {Line} line @returns {SVGElement} a piece of the line, for legends */
  function swatch(line) {
    return make("svg:svg", { viewBox: "0 0 30 12", class: "swatch", style: colour(line), "aria-hidden": "true" },
      make("svg:path", { d: "M1 6H29", class: "line", "stroke-dasharray": line.look[2] }),
      make("svg:path", { d: marker(line.look[1], 15, 6, 3.4), class: "mark" }));
  }

  /** @param {Axis} x @param {Axis} y @returns {Point[][]} the points of every picked line */
  function pointsOf(x, y) {
    return [...state.lines].map((line) => line.cells.flatMap((_, i) => {
      const a = x.of(line, i), b = y.of(line, i);
      return a && b ? [{ line, i, x: a[0], y: b[0], low: b[1], high: b[2] }] : [];
    }));
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
    const ends = every.flatMap((p) => [p.low, p.high])
      .filter((v) => v != null && (every.some((p) => p.y <= 0) || v > 0));
    const floor = more.floor && !state.relative ? [more.floor[0]] : [];
    const sx = makeScale(every.map((p) => p.x), x.scale, LEFT, WIDE - RIGHT);
    const means = [...every.map((p) => p.y), ...floor];
    const least = Math.min(...means);
    // The end of an interval near 0 must not flatten a logarithmic axis.
    const inside = ends.map(Number).map((v) => least > 0 ? Math.max(v, least / 2) : v);
    const sy = makeScale([...means, ...inside], y.scale, HIGH - BOTTOM, TOP);
    const svg = make("svg:svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img",
      "aria-label": `${head}: ${found.filter((f) => f.length).length} lines` });
    for (const t of sx.ticks) {
      svg.append(make("svg:path", { class: "grid", d: `M${sx.at(t)} ${TOP}V${HIGH - BOTTOM}` }),
        make("svg:text", { x: sx.at(t), y: HIGH - BOTTOM + 14, class: "tick middle" }, short(t)));
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
      const { line } = points[0], group = make("svg:g", { style: colour(line) });
      if (more.guided) {
        const band = points.filter((p) => p.low != null && p.high != null);
        /** @param {Point[]} side @param {"low"|"high"} key */
        const edge = (side, key) => side.map((p) =>
          `${sx.at(p.x).toFixed(1)} ${Math.min(Math.max(sy.at(Number(p[key])), TOP), HIGH - BOTTOM).toFixed(1)}`);
        if (band.length) {
          group.append(make("svg:path", { class: "band",
            d: `M${[...edge(band, "high"), ...edge([...band].reverse(), "low")].join("L")}Z` }));
        }
      }
      group.append(make("svg:path", { class: "line", "stroke-dasharray": line.look[2],
        d: `M${points.map((p) => `${sx.at(p.x).toFixed(1)} ${sy.at(p.y).toFixed(1)}`).join("L")}` }));
      for (const p of points) {
        group.append(make("svg:path", { class: "mark", d: marker(line.look[1], sx.at(p.x), sy.at(p.y), 2.4) },
          make("svg:title", {}, `${line.label}, ${named(state.set.scales[p.i])}: ${short(p.y)}`)));
      }
      svg.append(group);
    }
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
        class: "ring", style: colour(p.line), d: marker(p.line.look[1], sx.at(p.x), sy.at(p.y), 4.6) })));
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

  // ---- samples ----

  /** @param {Line} line @returns {Picture|null} its samples at the scale of the slider */
  function pictureOf(line) {
    const place = line.cells[state.at].p;
    return place == null ? null : state.set.pictures[place];
  }

  /** @param {Line} line @returns {string} why a line has no samples at the scale of the slider */
  function reason(line) {
    const cell = line.cells[state.at], g = named(state.set.scales[state.at]);
    return cell.why ? `${g}: ${cell.why}` : cell.v ? `No samples are stored at ${g}.` : `Not run at ${g}.`;
  }

  /** @param {Picture} picture @param {string} label */
  function strip(picture, label) {
    const names = picture.names ?? [];
    return make("img", { class: "strip", src: `data:image/png;base64,${picture.png}`, width: 48 * names.length,
      height: 48, style: `--tiles:${names.length}`,
      alt: `Samples of ${label} at ${named(state.set.scales[state.at])}, of class ${names.join(", ")}` });
  }

  /**
   * The samples of toy data in a panel, of one line or of two, one above the other.
   * @param {Line[]} lines
   */
  function panel(lines) {
    const { set } = state, frame = set.frame ?? [], shown = lines.map(pictureOf);
    const label = `Samples of ${lines.map((line) => line.label).join(" and ")}`;
    const flat = set.kind === "density";
    const [w, h] = flat ? [300, 110] : [220, 220];
    const svg = make("svg:svg", { viewBox: `0 0 ${w} ${h}`, role: "img", class: `panel ${set.kind}`,
      "aria-label": `${label} at ${named(set.scales[state.at])}` });
    const [x0, x1] = flat ? frame : [frame[0], frame[2]];
    const [y0, y1] = flat ? [0, frame[2]] : [frame[1], frame[3]];
    /** @param {number} v */
    const px = (v) => ((v - x0) / (x1 - x0) * w).toFixed(1);
    /** @param {number} v */
    const py = (v) => (h - (v - y0) / (y1 - y0) * h).toFixed(1);
    shown.forEach((picture, which) => {
      if (!picture) return;
      const target = /** @type {Target} */ ((set.targets ?? [])[picture.target ?? 0]);
      target.means.forEach((modes, k) => {
        const look = `class-${k % 4}${lines.length > 1 ? ` of-${"ab"[which]}` : ""}`;
        if (flat) {
          const edges = (set.edges ?? [])[picture.edges ?? 0], [from, ...counts] = (picture.counts ?? [])[k];
          const total = counts.reduce((sum, n) => sum + n, 0) || 1;
          let d = `M${px(edges[from])} ${h}`;
          counts.forEach((n, j) => {
            const at = from + j, end = at === 0 || at === edges.length - 2; // these count all beyond
            d += `V${py(end ? 0 : n / total / (edges[at + 1] - edges[at]))}H${px(edges[at + 1])}`;
          });
          svg.append(make("svg:path", { class: `bars ${look}`, d: `${d}V${h}` }));
        } else {
          const xy = (picture.points ?? [])[k];
          let d = "";
          for (let j = 0; j < xy.length; j += 2) {
            d += `M${(xy[j] / 999 * w).toFixed(1)} ${(h - xy[j + 1] / 999 * h).toFixed(1)}h0`;
          }
          svg.append(make("svg:path", { class: `dots ${look}`, d }));
        }
        if (which) return;
        if (flat) {
          const d = [...Array(201).keys()].map((j) => {
            const at = x0 + (x1 - x0) * j / 200;
            const high = modes.reduce((sum, mean) =>
              sum + Math.exp(-(((at - mean) / target.std) ** 2) / 2), 0) / modes.length;
            return `${px(at)} ${py(high / (target.std * Math.sqrt(2 * Math.PI)))}`;
          });
          svg.append(make("svg:path", { class: "exact", d: `M${d.join("L")}` }));
        } else {
          for (const [x, y] of modes) {
            for (const r of [1, 3]) {
              svg.append(make("svg:ellipse", { class: `exact ring-${r}`, cx: px(x), cy: py(y),
                rx: r * target.std / (x1 - x0) * w, ry: r * target.std / (y1 - y0) * h }));
            }
          }
        }
      });
    });
    if (flat) svg.append(make("svg:text", { x: 3, y: 11, class: "tick" }, short(x0)),
      make("svg:text", { x: w - 3, y: 11, class: "tick end" }, short(x1)));
    const note = shown.length === 1 && shown[0]?.note;
    if (note) svg.append(make("svg:text", { x: w / 2, y: 11, class: "tick middle" }, note));
    return svg;
  }

  /** @param {Line} line */
  function samples(line) {
    const picture = pictureOf(line);
    const box = make("figure", { class: "sample", "data-line": line.id },
      make("figcaption", {}, swatch(line), line.label));
    if (!picture) box.append(make("p", { class: "why" }, reason(line)));
    else if (picture.why) box.append(make("p", { class: "why" }, picture.why));
    else box.append(state.set.kind === "images" ? strip(picture, line.label) : panel([line]));
    return box;
  }

  function drawPictures() {
    const { set, a, b } = state, box = byId("pictures");
    byId("samples").hidden = !set.pictures.length;
    box.className = byId("pair").className = `pictures ${set.kind}`;
    box.replaceChildren(...[...state.lines].map(samples));
    byId("pair").replaceChildren(...(a && b ? compared(a, b) : []));
  }

  /** @param {Line} a @param {Line} b the pinned lines, and their difference */
  function compared(a, b) {
    const pictures = [a, b].map(pictureOf);
    const boxes = [[a, "A"], [b, "B"]].map(([line, name]) => {
      const box = samples(/** @type {Line} */ (line));
      box.querySelector("figcaption").prepend(make("strong", {}, `${name} `));
      return box;
    });
    const last = make("figure", { class: "sample difference" }, make("figcaption", {}, "A − B"));
    if (!pictures[0] || !pictures[1] || pictures.some((p) => p?.why)) {
      last.append(make("p", { class: "why" }, "No difference: A or B has no samples here."));
    } else if (state.set.kind !== "images") {
      last.querySelector("figcaption").textContent = "A (filled) and B (outlined)";
      last.append(panel([a, b]));
    } else {
      const canvas = make("canvas", { class: "strip", role: "img", "aria-label": "Difference of A and B" });
      last.append(canvas);
      difference(canvas, last.querySelector("figcaption"), pictures.map((p) => /** @type {Picture} */ (p)));
    }
    return [...boxes, last];
  }

  /**
   * Draw |A - B| of two strips of the same classes.
   * @param {HTMLCanvasElement} canvas @param {HTMLElement} caption @param {Picture[]} pictures
   */
  async function difference(canvas, caption, pictures) {
    const loaded = await Promise.all(pictures.map(async (picture) => {
      const image = new Image();
      image.src = `data:image/png;base64,${picture.png}`;
      await image.decode();
      return image;
    }));
    const [width, height] = [loaded[0].width, loaded[0].height];
    if (loaded[1].width !== width || loaded[1].height !== height) return;
    canvas.width = width;
    canvas.height = height;
    canvas.style.setProperty("--tiles", String(width / height));
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    const [one, two] = loaded.map((image) => {
      pen.drawImage(image, 0, 0);
      return pen.getImageData(0, 0, width, height);
    });
    let sum = 0;
    for (let k = 0; k < one.data.length; k++) {
      if (k % 4 === 3) continue;
      one.data[k] = Math.abs(one.data[k] - two.data[k]);
      sum += one.data[k];
    }
    pen.putImageData(one, 0, 0);
    const mean = sum / (3 * width * height);
    caption.textContent = `|A − B|, on average ${mean.toFixed(1)} of 255 grey levels`;
  }

  // ---- table ----

  /** @returns {{head: string[], lines: {line: Line|null, label: string, cells: (Value|null)[], why: string}[]}} */
  function content() {
    const { set, at, a, b } = state;
    const shown = set.measures.flatMap((m, k) => m.headline || k === state.measure ? [k] : []);
    const head = ["line", ...shown.map((k) => `${set.measures[k].title} ${set.measures[k].arrow}`.trim()),
      "NFE", "s/image"];
    /** @type {{line: Line|null, label: string, cells: (Value|null)[], why: string}[]} */
    const lines = [...state.lines].map((line) => {
      const { nfe, s } = line.cells[at];
      const cells = [...shown.map((k) => valueOf(line, at, k)), nfe ? exact(nfe) : null, s ? exact(s) : null];
      return { line, label: line.label, cells, why: cells.some(Boolean) ? "" : reason(line) };
    });
    if (a && b) {
      const cells = shown.map((k) => {
        const [one, two] = [absolute(a, at, k), absolute(b, at, k)];
        if (!one || !two) return null;
        const less = one[0] - two[0];
        return /** @type {Value} */ ([less, null, null, `${less > 0 ? "+" : ""}${short(less)}`, ""]);
      });
      lines.push({ line: null, label: `A − B: ${a.label} − ${b.label}`, cells: [...cells, null, null], why: "" });
    }
    return { head, lines };
  }

  /** @returns {string} */
  const subject = () => `${state.set.name}, ${named(state.set.scales[state.at])}`
    + (state.relative ? ", relative to CFG at the same g" : "");

  function drawTable() {
    const { head, lines } = content();
    byId("table").replaceChildren(
      make("caption", {}, subject()),
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...lines.map(({ line, label, cells, why }) => make("tr", {},
        make("th", { scope: "row" }, line ? swatch(line) : null, label),
        ...(why ? [make("td", { colspan: cells.length, class: "why" }, why)]
          : cells.map((v) => v ? make("td", {}, v[3], v[4] ? make("small", {}, ` ${v[4]}`) : null)
            : make("td", {}, "–")))))));
  }

  /** @returns {string} the table as CSV; text that a spreadsheet would run starts with an apostrophe */
  function csv() {
    /** @param {string|number} found */
    const quoted = (found) => {
      const text = String(found);
      const safe = typeof found === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
      return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const { head, lines } = content(), last = head.length - 2;
    const names = head.flatMap((name, k) => k === 0 || k >= last ? [name] : [name, `${name} low`, `${name} high`]);
    const records = lines.map(({ label, cells, why }) => [label, ...cells.flatMap((v, k) => {
      const three = v ? [v[0], v[1] ?? "", v[2] ?? ""] : ["", "", ""];
      return k + 1 >= last ? three.slice(0, 1) : three;
    }), why]);
    const all = [["data set", "g", ...names, "reason"],
      ...records.map((r) => [state.set.name, state.set.scales[state.at], ...r])];
    return `${all.map((r) => r.map(quoted).join(",")).join("\n")}\n`;
  }

  /** @returns {string} the table as a tabular of LaTeX with booktabs */
  function latex() {
    /** @type {Record<string, string>} */
    const known = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
      "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "↓": "$\\downarrow$", "↑": "$\\uparrow$",
      "−": "$-$", "–": "--", "±": "$\\pm$", "≤": "$\\leq$", "≥": "$\\geq$", "×": "$\\times$" };
    /** @param {string} text */
    const safe = (text) => text.replace(/[\\~^<>|↓↑−–±≤≥×]|[&%$#_{}]/g, (c) => known[c] ?? `\\${c}`)
      .replace(/\s+/g, " ");
    const { head, lines } = content();
    const body = lines.map(({ label, cells, why }) => [safe(label), ...(why
      ? [`\\multicolumn{${cells.length}}{l}{${safe(why)}}`]
      : cells.map((v) => v ? safe(v[3]) + (v[4] ? `\\,{\\scriptsize ${safe(v[4])}}` : "") : "--"))]);
    return [`% ${subject().replace(/\s+/g, " ")}`, `\\begin{tabular}{l${"r".repeat(head.length - 1)}}`, "\\toprule",
      `${head.map(safe).join(" & ")} \\\\`, "\\midrule", ...body.map((r) => `${r.join(" & ")} \\\\`),
      "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }

  /** @param {string} text @param {string} what */
  async function copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // such as a page that was not served by https
      const box = make("textarea", { class: "hidden" });
      box.value = text;
      document.body.append(box);
      box.select();
      document.execCommand("copy");
      box.remove();
    }
    byId("said").textContent = `The table was copied as ${what}.`;
  }

  // ---- choices ----

  /** @param {any} select @param {[string, string][]} options value and text */
  function fill(select, options) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  }

  function drawChoices() {
    const { set } = state;
    fill(byId("data"), sets.map((s, k) => [String(k), s.name]));
    fill(byId("measure"), set.measures.map((m, k) => [String(k), `${m.title} ${m.arrow}`.trim()]));
    fill(byId("x"), [["g", "guidance g"], ["nfe", "NFE"], ["s", "seconds per image"],
      ...set.measures.map((m) => /** @type {[string, string]} */ ([m.id, m.title]))]);
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
      some.forEach((line) => on ? state.lines.add(line) : state.lines.delete(line));
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

  // ---- state ----

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

  function stop() {
    clearInterval(timer);
    timer = 0;
    byId("play").textContent = "Play";
  }

  function play() {
    if (timer) return stop();
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
    if (timer) stop();
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
})();
