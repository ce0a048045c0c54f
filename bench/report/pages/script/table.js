// @ts-check
// The table of one scale, and its copies as CSV and LaTeX.

/** @returns {{head: string[], lines: {line: Line|null, label: string, cells: (Value|null)[], why: string}[]}} */
function content() {
  const { set, at, a, b } = state;
  const shown = set.measures.flatMap((m, k) => m.headline || k === state.measure ? [k] : []);
  const head = ["line", ...shown.map((k) => `${set.measures[k].title} ${set.measures[k].arrow}`.trim()),
    "NFE", "time/image"];
  /** @type {{line: Line|null, label: string, cells: (Value|null)[], why: string}[]} */
  const lines = [...state.lines].map((line) => {
    const { nfe, s } = line.cells[at];
    const cells = [...shown.map((k) => shownValue(line, at, k)), nfe ? exact(nfe) : null,
      s ? /** @type {Value} */ ([s, s, s, duration(s), ""]) : null];
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
  const names = head.flatMap((name, k) => k > last ? ["s/image"] : k === 0 || k === last ? [name] : [name, `${name} low`, `${name} high`]);
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
    "−": "$-$", "–": "--", "±": "$\\pm$", "≤": "$\\leq$", "≥": "$\\geq$", "µ": "$\\mu$", "×": "$\\times$" };
  /** @param {string} text */
  const safe = (text) => text.replace(/[\\~^<>|↓↑−–±≤≥×µ]|[&%$#_{}]/g, (c) => known[c] ?? `\\${c}`)
    .replace(/\s+/g, " ");
  const { head, lines } = content();
  const body = lines.map(({ label, cells, why }) => [safe(label), ...(why
    ? [`\\multicolumn{${cells.length}}{l}{${safe(why)}}`]
    : cells.map((v) => v ? safe(v[3].replace(/^-/, "−")) + (v[4] ? `\\,{\\scriptsize ${safe(v[4])}}` : "") : "--"))]);
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
