// The page: a range of a film is looked at and asked about.

import { ApiError, events, json, onKeyNeeded, reason } from "./api.js";
import { Chooser } from "./choose.js";
import { Conversation, make } from "./conversation.js";
import { Timeline, formatTime, parseTime } from "./timeline.js";

const FRAMES_DELAY = 250; // milliseconds after the last change of the range
const HEALTH_DELAY = 2000; // milliseconds between questions whether the model is loaded

const byId = (id) => document.getElementById(id);
const player = byId("player");
const question = byId("question");

let model = "";
let film = null; // { source, name, duration }
let history = []; // turns about the range that is chosen: [question, answer]
let running = null; // AbortController of the answer or the search
let looking = null; // AbortController of the request for frames
let framesDue = 0; // the timer of the next one
let segment = null; // the one that plays

const timeline = new Timeline(byId("track"), document.querySelector(".scale"), {
  onRange: rangeChosen,
  onMove: showRange,
  onSeek: seek,
});
const conversation = new Conversation(byId("log"), byId("scroll"), byId("hint"), {
  onPlay: play,
  onSelect: select,
});
const chooser = new Chooser({ onOpen: show, onLeave: leave });

// the film

function show(opened, found, address) {
  film = opened;
  document.title = `${film.name} · panda`;
  byId("film-name").textContent = film.name;
  byId("work").hidden = byId("another").hidden = false;
  byId("no-player").hidden = true;
  player.hidden = false;
  player.style.aspectRatio = `${found.width} / ${found.height}`;
  player.src = address;
  history = [];
  conversation.clear();
  timeline.open(film.duration);
  byId("legend").hidden = true;
  showFrames(found);
  byId("film-name").focus();
}

function leave() {
  running?.abort();
  looking?.abort();
  clearTimeout(framesDue);
  player.pause();
  if (player.src.startsWith("blob:")) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
  player.load();
  film = segment = null;
  document.title = "panda";
  byId("work").hidden = byId("another").hidden = true;
}

// the range and its frames

function showRange() {
  byId("from").value = formatTime(timeline.start);
  byId("to").value = formatTime(timeline.end);
  byId("whole").disabled = timeline.isWhole;
}

function range() {
  return timeline.isWhole ? {} : { from: timeline.start, to: timeline.end };
}

function rangeChosen() {
  if (history.length) {
    const whole = timeline.isWhole;
    const what = `${formatTime(timeline.start)} – ${formatTime(timeline.end)}`;
    conversation.divide(whole ? "Now about the whole film" : `Now about ${what}`);
  }
  history = [];
  clearTimeout(framesDue);
  framesDue = setTimeout(look, FRAMES_DELAY);
}

async function look() {
  looking?.abort();
  const controller = (looking = new AbortController());
  byId("frames").setAttribute("aria-busy", "true");
  try {
    showFrames(await json("/panda/frames", { video: film.source, ...range() }, controller.signal));
  } catch (error) {
    if (error.name !== "AbortError") {
      byId("frames").replaceChildren();
      byId("frames-note").textContent = reason(error);
    }
  } finally {
    if (looking === controller) byId("frames").removeAttribute("aria-busy");
  }
}

function showFrames({ frames, notices, width, height }) {
  const items = frames.map(({ time, picture }) => {
    const item = make("li");
    const button = item.appendChild(make("button"));
    button.type = "button";
    const image = button.appendChild(make("img"));
    image.src = picture;
    image.alt = "";
    image.style.aspectRatio = `${width} / ${height}`;
    button.append(make("span", "", formatTime(time)));
    button.setAttribute("aria-label", `Frame at ${formatTime(time)}`);
    button.addEventListener("click", () => seek(time));
    return item;
  });
  byId("frames").replaceChildren(...items);
  byId("frames-note").textContent = notices.join(" ");
  timeline.setMarks(frames.map((frame) => frame.time));
}

function rangeTyped() {
  const typed = (id, now) => {
    const text = byId(id).value;
    return text === formatTime(now) ? now : parseTime(text); // which is more exact
  };
  const [start, end] = [typed("from", timeline.start), typed("to", timeline.end)];
  const wrong = { from: Number.isNaN(start), to: Number.isNaN(end) || end <= start };
  for (const [id, isWrong] of Object.entries(wrong)) {
    byId(id).setAttribute("aria-invalid", isWrong);
    const what = id === "from" ? "A time, such as 0:12.5" : "A time after the start, such as 0:12.5";
    byId(id).setCustomValidity(isWrong ? what : "");
  }
  if (!byId("range").reportValidity()) return;
  timeline.setRange(start, end);
  rangeChosen();
}

// playing

function seek(time) {
  segment = null;
  if (player.readyState) player.currentTime = time;
  timeline.setPlayhead(time);
}

function play(chosen) {
  if (player.hidden) {
    select(chosen);
    return;
  }
  seek(chosen.start);
  segment = chosen;
  player.scrollIntoView({ block: "nearest" });
  player.play().catch(() => {});
}

function select({ start, end }) {
  timeline.setRange(start, end);
  rangeChosen();
  question.focus();
}

function timePassed() {
  if (!film || !player.readyState) return;
  timeline.setPlayhead(player.currentTime);
  if (segment && player.currentTime >= segment.end) {
    player.pause();
    segment = null;
  }
}

function everyFrame() {
  timePassed(); // timeupdate comes four times a second, too late for the end of a segment
  if (!player.paused) requestAnimationFrame(everyFrame);
}

// asking

async function run(begin, work) {
  const asked = question.value.trim();
  if (running) return;
  if (!asked) {
    question.focus();
    return;
  }
  const controller = (running = new AbortController());
  question.value = "";
  setBusy(true);
  const shown = begin(asked);
  try {
    shown.end({ note: await work(asked, shown, controller.signal) });
  } catch (error) {
    if (error.name === "AbortError") shown.end({ note: "Stopped." });
    else {
      shown.end({ error: reason(error) });
      question.value ||= asked; // to be asked again
    }
  } finally {
    if (running === controller) running = null;
    setBusy(false);
  }
}

async function answer(asked, shown, signal) {
  const turns = history;
  const body = { model, stream: true, messages: messages(asked), ...range() };
  let text = "";
  let reasonToEnd = "";
  try {
    for await (const { choices } of events("/v1/chat/completions", body, signal)) {
      const piece = choices[0]?.delta.content ?? "";
      text += piece;
      if (piece) shown.add(piece);
      reasonToEnd = choices[0]?.finish_reason ?? reasonToEnd;
    }
  } finally {
    if (text) turns.push([asked, text]); // also of an answer that was stopped
  }
  if (reasonToEnd === "length") return "The answer reached its longest length.";
  return text ? "" : "The model said nothing.";
}

function messages(asked) {
  const { file_id: id, url } = film.source;
  const video = id ? { type: "file", file: { file_id: id } } : { type: "video_url", video_url: { url } };
  const turns = history.flatMap(([before, text]) => [
    { role: "user", content: before },
    { role: "assistant", content: text },
  ]);
  const now = { role: "user", content: [video, { type: "text", text: asked }] };
  return [...turns, now];
}

async function search(asked, shown, signal) {
  const windows = [];
  let found = null;
  let threshold = 0;
  timeline.clear();
  byId("legend").hidden = false;
  const body = { video: film.source, question: asked, ...range() };
  for await (const event of events("/panda/when", body, signal)) {
    threshold = event.threshold ?? threshold;
    if (event.windows) {
      windows.push(...event.windows);
      timeline.setCurve(windows, threshold);
      shown.progress(event.done, event.total);
    }
    if (event.segments) {
      found = event.segments;
      timeline.setSegments(found);
      shown.segments(found);
    }
  }
  const failed = windows.filter((each) => each.error);
  if (failed.length) return `${failed.length} of ${windows.length} windows failed: ${failed[0].error}.`;
  if (found.length) return "";
  const highest = windows.reduce((most, each) => Math.max(most, each.probability), 0);
  return `Nothing found: the highest probability of yes is ${highest.toFixed(2)}.`;
}

function setBusy(busy) {
  const hadFocus = document.activeElement === byId("stop");
  byId("stop").hidden = !busy;
  byId("ask").hidden = byId("when").hidden = busy;
  if (hadFocus) question.focus();
}

// events of the page

function listen() {
  byId("another").addEventListener("click", () => {
    chooser.show();
    byId("file").focus();
  });
  byId("whole").addEventListener("click", () => {
    timeline.setRange(0, film.duration);
    rangeChosen();
  });
  byId("range").addEventListener("submit", (event) => {
    event.preventDefault();
    rangeTyped();
  });
  for (const id of ["from", "to"]) byId(id).addEventListener("change", rangeTyped);
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    run((asked) => conversation.ask(asked), answer);
  });
  byId("when").addEventListener("click", () => run((asked) => conversation.search(asked), search));
  byId("stop").addEventListener("click", () => running?.abort());
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("composer").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) running.abort();
  });
  player.addEventListener("play", everyFrame);
  player.addEventListener("timeupdate", timePassed);
  player.addEventListener("error", () => {
    if (!film) return;
    player.hidden = true;
    byId("no-player").hidden = false;
  });
}

function askForKey(wasWrong) {
  const dialog = byId("key-dialog");
  byId("key").value = "";
  if (wasWrong) byId("key-text").textContent = "This key is wrong. Try another one.";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      resolve(byId("key").value);
    };
    dialog.oncancel = () => reject(new ApiError("This server needs a key: reload the page to give it."));
  });
}

/** Show the model's name, and whether it is loaded until it is. */
async function showModel() {
  const { weights } = await json("/health");
  const isLoaded = weights === "loaded";
  byId("model").textContent = isLoaded ? model : `${model} (${weights} yet)`;
  if (!isLoaded) setTimeout(() => showModel().catch(() => {}), HEALTH_DELAY);
}

async function begin() {
  onKeyNeeded(askForKey);
  listen();
  try {
    model = (await json("/v1/models")).data[0].id;
    await chooser.list();
    await showModel();
  } catch (error) {
    byId("model").textContent = "no connection";
    chooser.fail(error);
  }
}

begin();
