// The list of earlier answers: what history.js keeps, to be opened again or forgotten.

import * as history from "./history.js";
import { brief, moment } from "./words.js";

const FEW = 6; // shown until all are asked for

const [section, list, more, forgetAll, refused] = ["history", "history-list", "history-more", "history-forget", "history-refused"].map(
  (id) => document.getElementById(id),
);

export class Shelf {
  /** `onOpen(entry)` shows a kept answer; `onEmptied()` is told when the last thing that could have the focus is gone. */
  constructor({ onOpen, onEmptied }) {
    this.#onOpen = onOpen;
    this.#onEmptied = onEmptied;
    more.addEventListener("click", () => this.#showAll());
    forgetAll.addEventListener("click", () => this.#forgetAll());
    // Another tab may have kept or forgotten something meanwhile.
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    this.refresh();
  }

  #onOpen;
  #onEmptied;
  #all = false;
  #items = new Map(); // id -> <li>; nothing of an answer that is listed ever changes
  #entries = new Map(); // id -> the entry as it is kept now

  /** Keeps an answer and gives its id, or null when the browser refuses. */
  async keep(entry) {
    const id = await this.#unlessRefused(history.keep(entry));
    await this.refresh();
    return id;
  }

  /** Adds what somebody `said` to a kept answer. */
  async add(id, said) {
    await this.#unlessRefused(history.add(id, said));
    await this.refresh();
  }

  async refresh() {
    const entries = (await this.#unlessRefused(history.kept())) ?? [];
    this.#entries = new Map(entries.map((entry) => [entry.id, entry]));
    const shown = this.#all ? entries : entries.slice(0, FEW);
    this.#show(shown);
    more.hidden = shown.length === entries.length;
    more.textContent = `Show all ${entries.length}`;
    forgetAll.hidden = !entries.length;
    section.hidden = !entries.length && refused.hidden;
  }

  #show(entries) {
    const before = this.#items;
    this.#items = new Map(entries.map((entry) => [entry.id, before.get(entry.id) ?? this.#item(entry)]));
    const items = [...this.#items.values()];
    if (items.length === list.children.length && items.every((item, place) => item === list.children[place])) return;
    list.replaceChildren(...items);
    for (const [id, item] of before) {
      if (!this.#items.has(id)) release(item.querySelector("img"));
    }
  }

  #item(entry) {
    const item = document.getElementById("kept").content.cloneNode(true).firstElementChild;
    const image = item.querySelector("img");
    if (entry.preview) image.src = URL.createObjectURL(entry.preview);
    else image.remove();
    item.querySelector(".kept-name").textContent = entry.name;
    item.querySelector(".kept-answer").textContent = brief(entry.answer);
    item.querySelector(".kept-moment").append(moment(entry.at));
    item.querySelector(".kept-open").addEventListener("click", () => this.#onOpen(this.#entries.get(entry.id)));
    const forget = item.querySelector(".kept-forget");
    forget.setAttribute("aria-label", `Forget ${entry.name}, ${brief(entry.answer)}`);
    forget.addEventListener("click", () => this.#forget(entry.id, [...list.children].indexOf(item)));
    return item;
  }

  async #forget(id, place) {
    await this.#unlessRefused(history.forget(id));
    await this.refresh();
    const left = list.querySelectorAll(".kept-forget");
    if (left.length) left[Math.min(place, left.length - 1)].focus(); // the button that had the focus is gone
    else this.#onEmptied();
  }

  async #forgetAll() {
    if (!confirm("Forget all answers that this browser keeps? They cannot be brought back.")) return;
    await this.#unlessRefused(history.forgetAll());
    await this.refresh();
    this.#onEmptied();
  }

  async #showAll() {
    this.#all = true;
    await this.refresh();
    list.children[FEW]?.querySelector(".kept-open").focus();
  }

  /** The result, or null when the browser refuses; says so the first time. */
  async #unlessRefused(result) {
    try {
      return await result;
    } catch {
      section.hidden = false;
      if (refused.hidden) {
        refused.hidden = false;
        refused.textContent = "This browser keeps nothing for the page: a private window, storage forbidden, or no room left. Answers stay until you leave.";
      }
      return null;
    }
  }
}

function release(image) {
  if (!image) return;
  const address = image.src;
  image.removeAttribute("src"); // it may still be loading
  URL.revokeObjectURL(address);
}
