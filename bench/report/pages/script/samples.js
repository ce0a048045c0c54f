// @ts-check
// Samples of the same seeds next to each other, and the difference of two lines.

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

/** @param {Picture} picture the classes below its tiles, which the text of the image has too */
function classes(picture) {
  const names = picture.names ?? [];
  return make("div", { class: "names", style: `--tiles:${names.length}`, "aria-hidden": "true" },
    ...names.map((name) => make("span", { title: name }, name)));
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
  else if (state.set.kind === "images") box.append(strip(picture, line.label), classes(picture));
  else box.append(panel([line]));
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
