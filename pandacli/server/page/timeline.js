// The timeline of a film: a range with two handles, the curve of P(yes), and segments.

const SHORTEST = 0.1; // seconds of a range
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
const LABEL_WIDTH = 80; // pixels at least from one label of the scale to the next
const SLACK = 4; // pixels that a click may move

/** Seconds as 0:06.2, or with `decimals` of another number. */
export function formatTime(seconds, decimals = 1) {
  const unit = 10 ** decimals;
  const total = Math.round(seconds * unit) / unit;
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  const rest = (total % 60).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** The seconds of 6.2, 0:06.2 or 0:00:06.2; NaN for another text. */
export function parseTime(text) {
  const match = /^(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)$/.exec(text.trim());
  if (!match) return NaN;
  const [hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0));
  return hours * 3600 + minutes * 60 + seconds;
}

export class Timeline {
  /** `onRange` is called once a range has been chosen, `onMove` while it changes. */
  constructor(track, scale, { onRange, onMove, onSeek }) {
    this.track = track;
    this.scale = scale;
    Object.assign(this, { onRange, onMove, onSeek });
    this.duration = 0;
    this.start = this.end = 0;
    this.handles = ["start", "end"].map((side) => track.querySelector(`.handle.${side}`));
    this.handles.forEach((handle, index) => {
      handle.addEventListener("keydown", (event) => this.#key(event, index));
    });
    track.addEventListener("pointerdown", (event) => this.#press(event));
    new ResizeObserver(() => this.#drawScale()).observe(track);
  }

  /** Show a film of this many seconds, all of it chosen. */
  open(duration) {
    this.duration = duration;
    this.clear();
    this.setPlayhead(null);
    this.setRange(0, duration);
    this.#drawScale();
  }

  get isWhole() {
    return this.start <= 0 && this.end >= this.duration;
  }

  /** Choose a range, clamped to the film. */
  setRange(start, end) {
    this.start = clamp(start, 0, Math.max(0, this.duration - SHORTEST));
    this.end = clamp(end, Math.min(this.start + SHORTEST, this.duration), this.duration);
    this.track.style.setProperty("--start", this.#share(this.start));
    this.track.style.setProperty("--end", this.#share(this.end));
    const bounds = [
      [0, this.start, this.end],
      [this.start, this.end, this.duration],
    ];
    this.handles.forEach((handle, index) => {
      const [least, now, most] = bounds[index];
      handle.setAttribute("aria-valuemin", least.toFixed(2));
      handle.setAttribute("aria-valuemax", most.toFixed(2));
      handle.setAttribute("aria-valuenow", now.toFixed(2));
      handle.setAttribute("aria-valuetext", formatTime(now));
    });
    this.onMove();
  }

  /** Mark the times of frames. */
  setMarks(times) {
    const marks = times.map((time) => this.#placed("span", time));
    this.track.querySelector(".marks").replaceChildren(...marks);
  }

  setPlayhead(time) {
    const playhead = this.track.querySelector(".playhead");
    playhead.hidden = time === null;
    if (time !== null) playhead.style.left = `${this.#share(time) * 100}%`;
  }

  /** Remove the curve and the segments. */
  clear() {
    this.setCurve([], 0);
    this.setSegments([]);
  }

  /** Draw P(yes) of windows, each at its middle; one that failed leaves a gap. */
  setCurve(windows, threshold) {
    const svg = this.track.querySelector(".curve");
    svg.toggleAttribute("hidden", !windows.length);
    const line = [];
    const area = [];
    for (const run of runs(windows)) {
      const points = run.map((each) => {
        const x = this.#share((each.start + each.end) / 2) * 1000;
        return `${x.toFixed(2)},${(100 * (1 - each.probability)).toFixed(2)}`;
      });
      const [first, last] = [run[0].start, run.at(-1).end].map((t) => this.#share(t) * 1000);
      const [begins, ends] = [run[0], run.at(-1)].map((each) => 100 * (1 - each.probability));
      line.push(`M${first},${begins}L${points.join(" ")} ${last},${ends}`);
      area.push(`M${first},100L${first},${begins} ${points.join(" ")} ${last},${ends} ${last},100Z`);
    }
    svg.querySelector(".line").setAttribute("d", line.join(""));
    svg.querySelector(".area").setAttribute("d", area.join(""));
    for (const side of ["y1", "y2"]) {
      svg.querySelector(".threshold").setAttribute(side, 100 * (1 - threshold));
    }
    const peak = windows.reduce((a, b) => ((b.probability ?? 0) > (a?.probability ?? -1) ? b : a), null);
    svg.setAttribute("role", "img");
    svg.setAttribute(
      "aria-label",
      peak ? `P(yes) over the film: at most ${(peak.probability ?? 0).toFixed(2)}, at ${formatTime(peak.start)}` : "",
    );
  }

  setSegments(segments) {
    const bars = segments.map((segment) => {
      const bar = this.#placed("span", segment.start);
      bar.style.width = `${(this.#share(segment.end) - this.#share(segment.start)) * 100}%`;
      return bar;
    });
    this.track.querySelector(".segments").replaceChildren(...bars);
  }

  #share(time) {
    return this.duration ? clamp(time / this.duration, 0, 1) : 0;
  }

  #placed(tag, time) {
    const element = document.createElement(tag);
    element.style.left = `${this.#share(time) * 100}%`;
    return element;
  }

  #drawScale() {
    const most = Math.max(2, Math.floor(this.track.clientWidth / LABEL_WIDTH));
    const step = STEPS.find((each) => this.duration / each <= most) ?? this.duration;
    const labels = [];
    for (let time = 0; this.duration && time <= this.duration; time += step) {
      const label = this.#placed("span", time);
      label.textContent = formatTime(time, step < 1 ? 1 : 0);
      label.classList.toggle("first", !time);
      label.classList.toggle("last", this.#share(time) > 0.97);
      labels.push(label);
    }
    this.scale.replaceChildren(...labels);
  }

  #move(index, time) {
    if (index === 0) this.setRange(Math.min(time, this.end - SHORTEST), this.end);
    else this.setRange(this.start, Math.max(time, this.start + SHORTEST));
  }

  #key(event, index) {
    const step = this.duration > 120 ? 1 : 0.1;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    const now = index ? this.end : this.start;
    let time;
    if (event.key in steps) time = now + steps[event.key] * step * (event.shiftKey ? 10 : 1);
    else if (event.key === "Home") time = index ? this.start : 0;
    else if (event.key === "End") time = index ? this.duration : this.end;
    else return;
    event.preventDefault();
    this.#move(index, time);
    this.onRange();
  }

  #press(event) {
    if (event.button !== 0 || !this.duration) return;
    const box = this.track.getBoundingClientRect();
    const timeAt = (x) => clamp((x - box.left) / box.width, 0, 1) * this.duration;
    const index = this.handles.indexOf(event.target);
    const began = timeAt(event.clientX);
    let moved = false;
    const onMove = (move) => {
      moved ||= Math.abs(move.clientX - event.clientX) > SLACK;
      if (!moved) return;
      const time = timeAt(move.clientX);
      if (index >= 0) this.#move(index, time);
      else this.setRange(Math.min(began, time), Math.max(began, time));
    };
    const onEnd = (end) => {
      this.track.removeEventListener("pointermove", onMove);
      this.track.removeEventListener("pointerup", onEnd);
      this.track.removeEventListener("pointercancel", onEnd);
      if (moved) this.onRange();
      else if (index < 0 && end.type === "pointerup") this.onSeek(began);
    };
    this.track.setPointerCapture(event.pointerId);
    this.track.addEventListener("pointermove", onMove);
    this.track.addEventListener("pointerup", onEnd);
    this.track.addEventListener("pointercancel", onEnd);
  }
}

function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

// windows in a row that have a probability
function runs(windows) {
  const found = [];
  let run = [];
  for (const each of windows) {
    if (each.probability === null) {
      if (run.length) found.push(run);
      run = [];
    } else run.push(each);
  }
  return run.length ? [...found, run] : found;
}
