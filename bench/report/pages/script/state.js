// @ts-check
// The data of the page, its state, and elements made without markup.

/** @typedef {[number, number|null, number|null, string, string, Record<string, number>?]} Value
 *    mean, interval, texts, and values by seed or run if there are several */
/** @typedef {{v?: (Value|null)[], nfe?: number, s?: number, why?: string, p?: number}} Cell */
/** @typedef {{id: string, label: string, method: string, rule: string, picked: boolean,
 *    look: [string, string, string, string, number], base: number, cells: Cell[]}} Line */
/** @typedef {{id: string, label: string, title: string, arrow: string, better: string,
 *    scale: string, ratios: boolean, headline: boolean, strength: boolean, floor: Value|null}} Measure */
/** @typedef {{means: any[][], std: number}} Target */
/** @typedef {{png?: string, names?: string[], why?: string, edges?: number, target?: number,
 *    counts?: number[][], points?: number[][], note?: string}} Picture */
/** @typedef {{name: string, scales: number[], measures: Measure[], lead: number, cfg: number,
 *    pairs: [number, number][], lines: Line[], kind: string, pictures: Picture[],
 *    edges?: number[][], targets?: Target[], frame?: number[]}} DataSet */
/** @typedef {{name: string, short?: string, of: (line: Line, i: number) => Value|null, scale: string,
 *    show?: (value: number) => string}} Axis */
/** @typedef {{line: Line, i: number, x: number, y: number, low: number|null,
 *    high: number|null, by?: Record<string, number>|null}} Point */

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

/** @param {number} g */
const named = (g) => `g = ${g}`;

/** @param {number} value */
function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

/** @param {number} seconds @returns {string} two significant digits in a fitting unit */
function duration(seconds) {
  const [unit, size] = seconds < 1e-4 ? ["µs", 1e-6] : seconds < 0.1 ? ["ms", 1e-3] : ["s", 1];
  return `${Number((seconds / Number(size)).toPrecision(2))} ${unit}`;
}

/** @param {Line} line @returns {Line|null} the line under CFG that it is compared with */
const cfgOf = (line) => state.set.lines[line.base >= 0 ? line.base : state.set.cfg] ?? null;

/** @param {Line} line @param {number} i @param {number} m @returns {Value|null} */
const absolute = (line, i, m) => line.cells[i].v?.[m] ?? null;

/**
 * A value or, relative to CFG, its ratio or difference, which has no error here.
 * @param {Line} line @param {number} i @param {number} m @returns {Value|null}
 */
function shownValue(line, i, m) {
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

/** @param {number} m @param {boolean} relative @returns {Axis} */
function measureAxis(m, relative = state.relative) {
  const measure = state.set.measures[m];
  const how = relative ? (measure.ratios ? " / CFG" : " − CFG") : "";
  return {
    name: `${measure.label}${how} ${measure.arrow}`.trim(),
    scale: relative && !measure.ratios ? "linear" : measure.scale,
    of: (line, i) => relative ? shownValue(line, i, m) : absolute(line, i, m),
  };
}

/** @returns {Axis} the chosen x-axis */
function across() {
  const { scales, measures } = state.set;
  if (state.x === "nfe") {
    return { name: "network evaluations per image", short: "NFE", scale: "auto",
      of: (line, i) => line.cells[i].nfe ? exact(Number(line.cells[i].nfe)) : null };
  }
  if (state.x === "s") {
    return { name: "time per image", short: "time", scale: "auto", show: duration,
      of: (line, i) => line.cells[i].s ? exact(Number(line.cells[i].s)) : null };
  }
  const m = measures.findIndex((measure) => measure.id === state.x);
  if (m >= 0) return measureAxis(m, state.relative && !measures[m].strength);
  return { name: "guidance g (1 = off)", short: "g", scale: "linear", of: (_, i) => exact(scales[i]) };
}
