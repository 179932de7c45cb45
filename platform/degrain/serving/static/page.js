// The page of `degrain serve`: chooses a photo, sends it to the service that this page comes from,
// and shows it before and after.

const byId = (id) => document.getElementById(id);
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

/** An error whose message is for the person in front of the page. */
class ServiceError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// The service -------------------------------------------------------------------------------------

let token = sessionStorage.getItem("token");

let asking = null;

/** Ask for the token; resolves when there is one. Requests at one time ask once. */
function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    dialog.showModal();
    dialog.addEventListener("close", () => {
      token = byId("token").value.trim();
      sessionStorage.setItem("token", token);
      asking = null;
      resolve();
    }, { once: true });
  });
  return asking;
}

/** A request of the service, with the token; a refusal becomes a ServiceError in words. */
async function call(path, options = {}) {
  const headers = { ...options.headers };
  const sent = token;
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer. Check that it runs, and try again.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    // Another request may have asked while this one was on its way.
    if (token === sent) await askForToken();
    return call(path, options);
  }
  const text = await answer.text();
  let reason;
  try {
    reason = JSON.parse(text).detail;
  } catch {
    reason = `The service failed with status ${answer.status}.`;
  }
  const wait = answer.headers.get("Retry-After");
  if (answer.status === 429) reason = `The service is busy; try again in ${wait} seconds.`;
  throw new ServiceError(sentence(reason), answer.status);
}

const sentence = (text) => {
  const trimmed = text.trim();
  return trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
};

/** Denoise a photo; one that is too large for an immediate answer becomes a job. */
async function denoise(photo, choices, accept, signal) {
  const query = new URLSearchParams(choices);
  const request = {
    method: "POST",
    body: photo.blob,
    headers: { "Content-Type": photo.type, Accept: accept },
    signal,
  };
  try {
    return await readPhoto(await call(`/v1/denoise?${query}`, request));
  } catch (error) {
    if (error.status !== 413 || !/\/v1\/jobs/.test(error.message)) throw error;
  }
  const job = await (await call(`/v1/jobs?${query}`, request)).json();
  const path = `/v1/jobs/${job.id}`;
  try {
    return await readPhoto(await jobResult(path, signal));
  } finally {
    await call(path, { method: "DELETE", keepalive: true }).catch(() => {});
  }
}

async function jobResult(path, signal) {
  for (;;) {
    await wait(1000, signal);
    const job = await (await call(path, { signal })).json();
    if (job.state === "failed") throw new ServiceError(sentence(job.detail));
    if (job.state === "done") return call(job.result, { signal });
  }
}

/** Wait; rejects when the signal aborts. */
const wait = (milliseconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });

async function readPhoto(answer) {
  return {
    blob: await answer.blob(),
    model: answer.headers.get("Degrain-Model"),
    seconds: Number(answer.headers.get("Degrain-Seconds")),
    megapixels: Number(answer.headers.get("Degrain-Megapixels")),
    notes: answer.headers.get("Degrain-Notes"),
  };
}

// The view: two stacked images in each pane, with one zoom and position for all --------------------

const view = { scale: 1, x: 0, y: 0, fitted: true, width: 1, height: 1, split: 0.5 };
const panes = [];
const LARGEST_SCALE = 16;
const pixelsPerPoint = () => window.devicePixelRatio || 1;

function makePane(label) {
  const before = element("img", { alt: "Before: the photo as it is", draggable: false });
  const after = element("img", { alt: "After: the denoised photo", draggable: false });
  const layers = element("div", { className: "layers" }, before, after);
  const divider = element("div", { className: "divider" });
  const frame = element("div", { className: "view", tabIndex: 0 }, layers, divider);
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", `${label}: arrow keys move it, plus and minus zoom, 0 fits it`);
  const caption = element("figcaption");
  const figure = element("figure", { className: "pane" }, frame, caption);
  byId("panes").append(figure);
  const pane = { figure, frame, layers, before, after, divider, caption };
  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomAt(frame, event.clientX, event.clientY, Math.exp(-event.deltaY / 400));
  }, { passive: false });
  frame.addEventListener("keydown", onViewKey);
  followPointers(frame);
  new ResizeObserver(() => (view.fitted ? fit() : draw())).observe(frame);
  panes.push(pane);
  return pane;
}

const shownPanes = () => panes.filter((pane) => !pane.figure.hidden);

function draw() {
  for (const { frame, layers, after, divider } of shownPanes()) {
    const border = view.split * frame.clientWidth;
    const cut = Math.min(Math.max((border - view.x) / view.scale, 0), view.width);
    layers.style.width = `${view.width}px`;
    layers.style.height = `${view.height}px`;
    layers.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    layers.classList.toggle("magnified", view.scale * pixelsPerPoint() >= 2);
    after.style.clipPath = `inset(0 0 0 ${cut}px)`;
    divider.style.left = `${border}px`;
    divider.hidden = !after.src || view.split === 0 || view.split === 1;
  }
  byId("zoom").value = `${Math.round(view.scale * pixelsPerPoint() * 100)}%`;
}

function fit() {
  const frame = shownPanes()[0]?.frame;
  if (!frame || !frame.clientWidth) return;
  const full = 1 / pixelsPerPoint();
  view.scale = Math.min(frame.clientWidth / view.width, frame.clientHeight / view.height, 4 * full);
  view.x = (frame.clientWidth - view.width * view.scale) / 2;
  view.y = (frame.clientHeight - view.height * view.scale) / 2;
  view.fitted = true;
  draw();
}

function moveBy(x, y) {
  view.x += x;
  view.y += y;
  keepInside();
  view.fitted = false;
  draw();
}

/** Keep a part of the photo in sight. */
function keepInside() {
  const { clientWidth, clientHeight } = shownPanes()[0].frame;
  const inside = (position, size, frame) =>
    size <= frame ? (frame - size) / 2 : Math.min(0, Math.max(frame - size, position));
  view.x = inside(view.x, view.width * view.scale, clientWidth);
  view.y = inside(view.y, view.height * view.scale, clientHeight);
}

/** Zoom around a point of the window. */
function zoomAt(frame, clientX, clientY, factor) {
  const box = frame.getBoundingClientRect();
  const [x, y] = [clientX - box.left, clientY - box.top];
  const least = Math.min(frame.clientWidth / view.width, frame.clientHeight / view.height, 1) / 2;
  const scale = Math.min(LARGEST_SCALE, Math.max(least, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  view.fitted = false;
  keepInside();
  draw();
}

function zoomCentre(factor) {
  const { frame } = shownPanes()[0];
  const box = frame.getBoundingClientRect();
  zoomAt(frame, box.left + box.width / 2, box.top + box.height / 2, factor);
}

/** One pixel of the photo on one pixel of the screen. */
const zoomFull = () => zoomCentre(1 / pixelsPerPoint() / view.scale);

function onViewKey(event) {
  const step = event.shiftKey ? 200 : 40;
  const actions = {
    ArrowLeft: () => moveBy(step, 0),
    ArrowRight: () => moveBy(-step, 0),
    ArrowUp: () => moveBy(0, step),
    ArrowDown: () => moveBy(0, -step),
    "+": () => zoomCentre(1.25),
    "=": () => zoomCentre(1.25),
    "-": () => zoomCentre(0.8),
    0: fit,
    1: zoomFull,
  };
  if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  actions[event.key]();
}

/** One pointer moves the photo, two zoom it. */
function followPointers(frame) {
  const pointers = new Map();
  const middle = () => {
    const all = [...pointers.values()];
    const x = all.reduce((sum, p) => sum + p.x, 0) / all.length;
    const y = all.reduce((sum, p) => sum + p.y, 0) / all.length;
    const apart = all.length > 1 ? Math.hypot(all[0].x - all[1].x, all[0].y - all[1].y) : 0;
    return { x, y, apart };
  };
  frame.addEventListener("pointerdown", (event) => {
    frame.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  frame.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const from = middle();
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const to = middle();
    if (from.apart && to.apart) zoomAt(frame, to.x, to.y, to.apart / from.apart);
    moveBy(to.x - from.x, to.y - from.y);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    frame.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
}

// The photo and its results ------------------------------------------------------------------------

/** `running` and `fetching` abort what a newer choice replaces: the results, and a sample. */
const state = { photo: null, models: [], results: [], running: null, fetching: null, saving: false };

/** Only what has a result, and no newer one in work, can be downloaded. */
function updateButtons() {
  byId("run").disabled = !state.photo;
  byId("download").disabled = Boolean(state.running) || !state.results.length;
}

const choices = (model) => ({
  model,
  strength: byId("strength").value,
  detail: byId("detail").value,
});

/** Show an image from a blob; false where the browser cannot. */
async function show(image, blob) {
  if (image.src) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  try {
    await image.decode();
    return true;
  } catch {
    return false;
  }
}

async function open(blob, name) {
  fail(null);
  if (!blob.size) return fail("The file is empty; choose another.");
  const type = blob.type || (/\.tiff?$/i.test(name) ? "image/tiff" : "application/octet-stream");
  state.fetching?.abort();
  state.photo = { blob, name, type, shown: true };
  byId("welcome").hidden = true;
  byId("panes").hidden = byId("viewbar").hidden = byId("another").hidden = false;
  byId("result").hidden = true;
  panes.forEach(clear);
  await run();
}

/** Remove the photo of a pane, and what is said of it. */
function clear(pane) {
  for (const image of [pane.before, pane.after]) {
    if (image.src) URL.revokeObjectURL(image.src);
    image.removeAttribute("src");
  }
  pane.caption.textContent = "";
}

/** Open a sample, unless a newer choice comes first. */
async function openSample(name) {
  state.fetching?.abort();
  const { signal } = (state.fetching = new AbortController());
  try {
    const sample = await (await call(`/samples/${name}.png`, { signal })).blob();
    signal.throwIfAborted();
    open(sample, `${name}.png`);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof ServiceError)) throw error;
    fail(error.message);
  }
}

/** Show the photo as it is: TIFF, which browsers do not know, as the service reads it. */
async function showBefore(signal) {
  const { photo } = state;
  let { blob } = photo;
  const shown = await show(panes[0].before, blob);
  signal.throwIfAborted();
  photo.shown = shown;
  if (!shown) {
    blob = (await denoise(photo, { strength: 0 }, "image/png", signal)).blob;
    await show(panes[0].before, blob);
    signal.throwIfAborted();
  }
  await show(panes[1].before, blob);
  signal.throwIfAborted();
  view.width = panes[0].before.naturalWidth;
  view.height = panes[0].before.naturalHeight;
  photo.isOpen = true;
  fit();
}

/** Denoise the photo with the chosen model, and with the one that it is compared with; a later call
 * ends an earlier one. */
async function run() {
  if (!state.photo) return;
  state.running?.abort();
  const controller = new AbortController();
  const { signal } = controller;
  state.running = controller;
  state.results = [];
  updateButtons();
  fail(null);
  showTime(signal);
  try {
    // The photo may be chosen before the models are known.
    await loadModels();
    signal.throwIfAborted();
    const chosen = [byId("model").value, byId("other").value].filter(Boolean);
    showPanes(chosen.length);
    if (!state.photo.isOpen) await showBefore(signal);
    fit();
    for (const [place, model] of chosen.entries()) {
      await runModel(place, model, signal);
    }
    byId("progress").textContent = "Done.";
  } catch (error) {
    if (signal.aborted) return;
    byId("progress").textContent = "";
    // Of a photo that cannot be read a browser shows a broken image.
    if (!state.photo.isOpen) panes.forEach(clear);
    if (!(error instanceof ServiceError)) throw error;
    fail(error.message);
  } finally {
    if (state.running === controller) {
      state.running = null;
      // It ends the display of the time.
      controller.abort();
      updateButtons();
    }
  }
}

function showPanes(count) {
  const before = panes[1].figure.hidden;
  panes[1].figure.hidden = count < 2;
  if (before !== panes[1].figure.hidden) setSplit(count < 2 ? 0.5 : 0);
}

async function runModel(place, model, signal) {
  const accept = state.photo.shown ? "*/*" : "image/png";
  const chosen = choices(model);
  const result = await denoise(state.photo, chosen, accept, signal);
  const pane = panes[place];
  await show(pane.after, result.blob);
  signal.throwIfAborted();
  state.results[place] = { ...result, choices: chosen };
  pane.after.alt = `After: denoised by ${result.model}`;
  pane.caption.textContent = `${result.model} · ${result.seconds.toFixed(2)} s`;
  draw();
  showFacts();
}

/** The time that passes, until the signal; it is not announced, only start and end are. */
function showTime(signal) {
  const started = performance.now();
  byId("progress").textContent = "Denoising…";
  const timer = setInterval(() => {
    const seconds = Math.round((performance.now() - started) / 1000);
    byId("run").textContent = `Denoising… ${seconds} s`;
  }, 500);
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    byId("run").textContent = "Denoise";
  });
}

function fail(message) {
  byId("error").hidden = !message;
  byId("error").textContent = message ?? "";
}

function listFacts(list, facts) {
  const rows = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  list.replaceChildren(
    ...rows.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: String(value) }),
    ]),
  );
}

const megapixels = (count) => (count < 1 ? count.toPrecision(2) : count.toFixed(1));

function showFacts() {
  byId("result").hidden = false;
  const [first] = state.results;
  const times = state.results.map((r) => [r.model, `${r.seconds.toFixed(2)} s`]);
  listFacts(byId("facts"), [
    ["Size", `${view.width} × ${view.height}, ${megapixels(first.megapixels)} MP`],
    ...times,
    ["Not kept", first.notes],
  ]);
}

/** The full-size result in the format of the photo. */
async function download() {
  if (state.saving) return;
  const { photo, results: [result] } = state;
  let { blob } = result;
  state.saving = true;
  try {
    if (!photo.shown) blob = (await denoise(photo, result.choices, photo.type)).blob;
  } catch (error) {
    if (error instanceof ServiceError) return fail(error.message);
    throw error;
  } finally {
    state.saving = false;
  }
  const suffix = { "image/jpeg": "jpg", "image/tiff": "tif" }[blob.type] ?? blob.type.split("/")[1];
  const url = URL.createObjectURL(blob);
  const stem = photo.name.replace(/\.[^.]*$/, "");
  element("a", { href: url, download: `${stem}-denoised.${suffix}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// Models -------------------------------------------------------------------------------------------

let loading = null;

/** Load the models once, and again after a failure. */
function loadModels() {
  loading ??= readModels().catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

async function readModels() {
  const { models, note, registry } = await (await call("/v1/models")).json();
  state.models = models;
  const options = () =>
    models.map(({ id, label }) =>
      element("option", { value: id, textContent: id === label ? id : `${id}: ${label}` }));
  byId("model").replaceChildren(...options());
  byId("other").append(...options());
  byId("serving").textContent = note
    ? "No champion: the starter model serves"
    : `Champion: ${models[0].label}`;
  byId("serving").title = note ?? "";
  if (registry !== "reachable") byId("serving").textContent += " (the registry does not answer)";
  showCard();
}

function showCard() {
  const model = state.models.find(({ id }) => id === byId("model").value);
  if (!model) return;
  const { card } = model;
  const scores = Object.entries(card.scores).map(([protocol, score]) => [
    `Scores (${protocol})`,
    `${score.psnr.toFixed(2)} dB, SSIM ${score.ssim.toFixed(3)}`,
  ]);
  listFacts(byId("card-facts"), [
    ["Name", model.label],
    ["Network", card.model],
    ...scores,
    ["Trained on", card.patch_set ? `patch set ${card.patch_set.slice(0, 12)}` : null],
    ["Weights from", card.source?.origin ?? card.source?.file],
    ["Licence", card.source?.licence],
    ["Context", `${card.halo} pixels`],
  ]);
}

// Controls -----------------------------------------------------------------------------------------

function setSplit(share) {
  view.split = share;
  byId("split").value = share * 100;
  draw();
}

const percent = (value) => `${Math.round(value * 100)}%`;

for (const name of ["strength", "detail"]) {
  byId(name).addEventListener("input", (event) => {
    byId(`${name}-value`).value = percent(event.target.value);
  });
}
for (const name of ["strength", "detail", "model", "other"]) {
  byId(name).addEventListener("change", run);
}
byId("model").addEventListener("change", showCard);
byId("split").addEventListener("input", (event) => {
  view.split = event.target.value / 100;
  draw();
});
byId("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
byId("download").addEventListener("click", download);
byId("zoom-in").addEventListener("click", () => zoomCentre(1.25));
byId("zoom-out").addEventListener("click", () => zoomCentre(0.8));
byId("zoom-fit").addEventListener("click", fit);
byId("zoom-full").addEventListener("click", zoomFull);

for (const button of document.querySelectorAll("[data-choose]")) {
  button.addEventListener("click", () => byId("file").click());
}
byId("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) open(file, file.name);
});
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", () => openSample(button.dataset.sample));
}

const stage = byId("stage");
for (const name of ["dragenter", "dragover"]) {
  stage.addEventListener(name, (event) => {
    event.preventDefault();
    stage.classList.add("drop");
  });
}
stage.addEventListener("dragleave", () => stage.classList.remove("drop"));
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("drop");
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
});

// A page that is closed leaves no work behind.
window.addEventListener("pagehide", (event) => {
  if (!event.persisted) state.running?.abort();
});

makePane("Photo");
makePane("Photo by the other model").figure.hidden = true;
try {
  await loadModels();
} catch (error) {
  if (!(error instanceof ServiceError)) throw error;
  byId("serving").textContent = "Not ready";
  fail(error.message);
}
