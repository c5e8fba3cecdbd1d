// Choosing a video: one of the server's, or a file that is sent to it.

import { ApiError, json, reason, upload } from "./api.js";
import { make } from "./conversation.js";

const FILTER_FROM = 8; // videos from which they can be filtered

const byId = (id) => document.getElementById(id);

export class Chooser {
  #limit = 0; // bytes of a file that is sent; 0 is none
  #work = null; // AbortController of what goes on

  /** `onOpen` gets a film, its frames and the address that plays it; `onLeave` ends the last one. */
  constructor({ onOpen, onLeave }) {
    Object.assign(this, { onOpen, onLeave });
    byId("file").addEventListener("change", (event) => this.#send(event.target.files[0]));
    byId("filter").addEventListener("input", () => this.#filter());
    this.#listenForDrops();
  }

  /** List the server's videos. */
  async list() {
    const { videos, upload_limit: limit } = await json("/panda/media");
    this.#limit = limit;
    byId("library").hidden = !videos.length;
    byId("filter").hidden = videos.length < FILTER_FROM;
    byId("media").replaceChildren(...videos.map((name) => this.#entry(name)));
  }

  /** Show it, instead of a film. */
  show() {
    this.#work?.abort();
    this.onLeave();
    byId("choose").hidden = false;
    byId("choose-error").hidden = true;
  }

  /** Show an error. */
  fail(error) {
    if (error.name === "AbortError") return;
    byId("choose-error").textContent = reason(error);
    byId("choose-error").hidden = false;
  }

  #entry(url) {
    const item = make("li");
    const name = url.toWellFormed(); // a file's name may have bytes that are no text
    const slash = name.lastIndexOf("/") + 1;
    const button = item.appendChild(make("button"));
    button.type = "button";
    button.append(make("span", "folder", name.slice(0, slash)), name.slice(slash));
    button.addEventListener("click", () => {
      this.#during((signal) => this.#open({ url }, name, null, signal));
    });
    return item;
  }

  #filter() {
    const wanted = byId("filter").value.trim().toLowerCase();
    let shown = 0;
    for (const item of byId("media").children) {
      item.hidden = !item.textContent.toLowerCase().includes(wanted);
      shown += !item.hidden;
    }
    byId("no-match").hidden = shown > 0;
  }

  async #send(file) {
    if (!file) return;
    this.show();
    byId("file").value = ""; // so that the same file can be chosen again
    const bar = byId("upload-progress");
    await this.#during(async (signal) => {
      if (this.#limit && file.size > this.#limit) {
        const [size, most] = [file.size, this.#limit].map((bytes) => `${Math.ceil(bytes / 1e6)} MB`);
        throw new ApiError(`${file.name} has ${size}; this server takes files up to ${most}.`);
      }
      byId("upload-label").textContent = `Uploading ${file.name}`;
      byId("uploading").hidden = false;
      const record = await upload(file, (share) => (bar.value = share), signal);
      await this.#open({ file_id: record.id }, file.name, file, signal);
    });
  }

  async #open(source, name, file, signal) {
    const found = await json("/panda/frames", { video: source }, signal);
    byId("choose").hidden = true;
    const address = file ? URL.createObjectURL(file) : found.video;
    this.onOpen({ source, name, duration: found.duration }, found, address);
  }

  // the last choice counts: it ends one that still goes on
  async #during(work) {
    this.#work?.abort();
    const controller = (this.#work = new AbortController());
    byId("choose-error").hidden = true;
    byId("choose").setAttribute("aria-busy", "true");
    try {
      await work(controller.signal);
    } catch (error) {
      this.fail(error);
    } finally {
      if (this.#work === controller) {
        byId("choose").removeAttribute("aria-busy");
        byId("uploading").hidden = true;
        byId("upload-progress").value = 0;
      }
    }
  }

  #listenForDrops() {
    const isFile = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      byId("dropping").hidden = false;
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) byId("dropping").hidden = true;
    });
    document.addEventListener("drop", (event) => {
      byId("dropping").hidden = true;
      if (!isFile(event)) return;
      event.preventDefault();
      this.#send(event.dataTransfer.files[0]);
    });
  }
}
