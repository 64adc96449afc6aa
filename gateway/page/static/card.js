// One picture and its answer: the card's life is waiting -> answered or failed, and after "Try again" waiting once more.

import { Evidence } from "./evidence.js";
import { share, worded } from "./words.js";

const REST = 0.005; // below half a percent, what the service left out of `top` is not worth a bar

export class Card {
  /** `submission` is {name, picture: Blob, sample?: {title, artist, date, culture, url}}. */
  constructor(submission, { onAgain, onRemove }) {
    this.submission = submission;
    this.removed = new AbortController();
    this.element = document.getElementById("card").content.cloneNode(true).firstElementChild;
    this.#draw();
    this.#evidence = new Evidence((name) => this.#part(name), submission.picture, this.removed.signal);
    this.#part("again").addEventListener("click", () => onAgain(this));
    this.#part("remove").addEventListener("click", () => onRemove(this));
    this.waiting();
  }

  #evidence;

  /** Fulfilled with the card when the picture has its size on the page, or can have none. */
  drawn() {
    return this.#part("shown").decode().then(() => this, () => this);
  }

  waiting() {
    this.#state("waiting", { overline: this.submission.name, verdict: "Looking…", meaning: "" });
  }

  /** Shows an answer of the API and returns the sentence that tells it. */
  answered(answer) {
    const words = worded(answer);
    this.#state(answer.decision ?? "accepted", words);
    const { sample } = this.submission;
    this.#write("reference", sample ? `The Met catalogues it as ${sample.culture}.` : "");
    this.#part("bars").replaceChildren(...bars(answer.top ?? []));
    this.#evidence.offer(answer);
    this.#write("record", `Model ${answer.model.name}, version ${answer.model.version}\nRequest ${answer.requestId}`);
    return `${this.submission.name}: ${words.spoken}`;
  }

  /** Shows a Problem and returns the sentence that tells it. */
  failed(problem) {
    this.#state("failed", { overline: "No answer", verdict: problem.title, meaning: problem.detail });
    this.#write("record", problem.requestId ? `Request ${problem.requestId}` : "");
    this.#part("again").hidden = !problem.passing;
    return `${this.submission.name}: no answer. ${problem.title}. ${problem.detail}`.trim();
  }

  remove() {
    this.removed.abort();
    URL.revokeObjectURL(this.#part("shown").src);
    this.element.remove();
  }

  #draw() {
    const { name, picture, sample } = this.submission;
    const image = this.#part("shown");
    image.addEventListener("error", () => {
      image.hidden = true;
      this.#part("unshown").hidden = false;
    });
    image.src = URL.createObjectURL(picture);
    image.alt = sample ? sample.title : `Your picture ${name}`;
    this.#part("caption").replaceChildren(...(sample ? credit(sample) : [name]));
    this.#part("remove").setAttribute("aria-label", `Remove ${name}`);
    this.#part("again").setAttribute("aria-label", `Try again: ${name}`);
    this.#part("look").setAttribute("aria-label", `Where did it look? ${name}`);
  }

  #state(state, { overline, verdict, meaning }) {
    this.element.dataset.state = state;
    this.element.setAttribute("aria-busy", String(state === "waiting"));
    this.#write("overline", overline);
    this.#write("verdict", verdict);
    this.#write("meaning", meaning);
    this.#write("reference", "");
    this.#write("record", "");
    this.#part("bars").replaceChildren();
    this.#part("again").hidden = true;
    this.#evidence.offer(null);
  }

  #write(part, text) {
    this.#part(part).textContent = text;
  }

  #part(name) {
    return this.element.querySelector(`.${name}`);
  }
}

function credit({ title, artist, date, url }) {
  const link = document.createElement("a");
  link.href = url;
  link.rel = "noreferrer";
  link.textContent = title;
  return [`${artist}, `, link, `, ${date}. The\u00a0Met, CC0`];
}

function bars(top) {
  const rest = 1 - top.reduce((sum, { probability }) => sum + probability, 0);
  const rows = rest > REST ? [...top, { culture: "All others", probability: rest }] : top;
  return rows.map(({ culture, probability }) => {
    const row = document.getElementById("bar").content.cloneNode(true).firstElementChild;
    row.querySelector(".bar-culture").textContent = culture;
    row.querySelector(".bar-share").textContent = share(probability);
    row.style.setProperty("--share", probability);
    return row;
  });
}
