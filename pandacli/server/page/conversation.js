// Questions and answers on the page. All text from outside goes in by textContent.

import { formatTime } from "./timeline.js";

export class Conversation {
  /** `onPlay` and `onSelect` get a segment that was clicked. */
  constructor(log, scroll, hint, { onPlay, onSelect }) {
    Object.assign(this, { log, scroll, hint, onPlay, onSelect });
  }

  clear() {
    this.log.replaceChildren();
    this.hint.hidden = false;
  }

  get isEmpty() {
    return !this.log.childElementCount;
  }

  /** Say that the following questions are about another range. */
  divide(text) {
    const item = make("p", "divider", text);
    if (this.log.lastElementChild?.classList.contains("divider")) this.log.lastElementChild.remove();
    this.log.append(item);
    this.#follow();
  }

  /** A question whose answer streams in: `add` text, then `end`, with an error or a note. */
  ask(question) {
    const { item, body } = this.#turn(question, "asked");
    const text = body.appendChild(make("p", "text"));
    const waiting = body.appendChild(make("p", "waiting", "Looking"));
    const end = (problem) => this.#end(item, body, waiting, problem);
    return {
      add: (piece) => {
        waiting.remove();
        text.textContent += piece;
        this.#follow();
      },
      end,
    };
  }

  /** A search: `progress`, `segments`, then `end`. */
  search(question) {
    const { item, body } = this.#turn(question, "searched");
    const waiting = body.appendChild(make("div", "searching"));
    const label = waiting.appendChild(make("p", "waiting", "Looking at the first windows"));
    const bar = waiting.appendChild(make("progress"));
    bar.setAttribute("aria-label", "Windows looked at");
    const list = body.appendChild(make("ol", "found"));
    return {
      progress: (done, total) => {
        [bar.max, bar.value] = [total, done];
        label.textContent = `Window ${done} of ${total}`;
      },
      segments: (segments) => {
        list.replaceChildren(...segments.map((segment) => this.#segment(segment)));
        this.#follow();
      },
      end: (problem) => this.#end(item, body, waiting, problem),
    };
  }

  #turn(question, kind) {
    this.hint.hidden = true;
    this.log.setAttribute("aria-busy", "true"); // an answer is announced once it is whole
    const item = make("article", `turn ${kind}`);
    const asked = item.appendChild(make("p", "question"));
    asked.append(
      make("span", "visually-hidden", kind === "asked" ? "Asked: " : "Find when: "),
      make("span", "words", question),
    );
    const body = item.appendChild(make("div", "answer"));
    this.log.append(item);
    const scroller = this.#scroller;
    scroller.scrollTop = scroller.scrollHeight;
    return { item, body };
  }

  #end(item, body, waiting, { error = "", note = "" } = {}) {
    waiting.remove();
    if (error) {
      const alert = make("p", "error", error);
      alert.setAttribute("role", "alert");
      body.append(alert);
    }
    if (note) body.append(make("p", "note", note));
    item.classList.add("done");
    this.log.setAttribute("aria-busy", "false");
    this.#follow();
  }

  #segment(segment) {
    const item = make("li");
    const range = `${formatTime(segment.start)} – ${formatTime(segment.end)}`;
    const play = item.appendChild(make("button", "play", range));
    play.type = "button";
    play.setAttribute("aria-label", `Play ${formatTime(segment.start)} to ${formatTime(segment.end)}`);
    play.addEventListener("click", () => this.onPlay(segment));
    const share = item.appendChild(make("span", "share", segment.probability.toFixed(2)));
    share.title = "The highest probability of yes in it";
    const select = item.appendChild(make("button", "quiet", "Ask about it"));
    select.type = "button";
    select.setAttribute("aria-label", `Ask about ${range}`);
    select.addEventListener("click", () => this.onSelect(segment));
    return item;
  }

  // keep the end in view, unless the reader has scrolled up
  #follow() {
    const scroller = this.#scroller;
    const { scrollHeight, scrollTop, clientHeight } = scroller;
    if (scrollHeight - scrollTop - clientHeight < 160) scroller.scrollTop = scrollHeight;
  }

  // in a narrow window it is the page
  get #scroller() {
    const scrolls = getComputedStyle(this.scroll).overflowY === "auto";
    return scrolls ? this.scroll : document.scrollingElement;
  }
}

/** An element with a class and a text. */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
