// One picture and its answer: the card's life is waiting -> answered or failed, and after "Try again" waiting once more.

import { bars } from "./bars.js";
import { Evidence } from "./evidence.js";
import { maps } from "./heat.js";
import { preview } from "./history.js";
import { Opinion } from "./opinion.js";
import { Report } from "./report.js";
import { moment, worded } from "./words.js";

export class Card {
  /** `submission` is {name, picture: Blob | null, sample?: {title, artist, date, culture, url}, entry?}, with the kept `entry`
   * that it was opened from: then there is nobody to ask. */
  constructor(submission, { onAgain, onRemove, onPrint, onSaid }) {
    this.submission = submission;
    this.kept = submission.entry?.id ?? null; // its id among the kept answers
    this.keeping = null; // until it is kept, or refused
    this.report = null; // once there is an answer
    this.drawable = null; // true or false, when the browser has tried to draw the picture as the model sees it
    this.removed = new AbortController();
    this.element = document.getElementById("card").content.cloneNode(true).firstElementChild;
    this.#draw();
    this.#evidence = new Evidence((name) => this.#part(name), (map) => this.report.heat(map));
    this.#opinion = new Opinion((name) => this.#part(name), {
      signal: this.removed.signal,
      onSaid: async (said) => {
        await onSaid(this, said); // kept here too when it is shown
        this.said(said);
      },
    });
    this.#part("again").addEventListener("click", () => {
      onAgain(this);
      this.focus(); // the button that had the focus is gone
    });
    this.#part("print").addEventListener("click", () => onPrint(this));
    this.#part("remove").addEventListener("click", () => onRemove(this));
    this.waiting();
  }

  #evidence;
  #opinion;

  /** Shows a picture (a Blob). Fulfilled with true when the browser can draw it, else with false. */
  show(picture) {
    const image = this.#part("shown");
    URL.revokeObjectURL(image.src);
    image.hidden = false;
    return new Promise((resolve) => {
      image.onload = () => resolve(true);
      image.onerror = () => {
        image.hidden = true;
        resolve(false);
      };
      image.src = URL.createObjectURL(picture);
    });
  }

  /** Fulfilled with the card when the picture has its size on the page, or can have none. */
  drawn() {
    return this.#part("shown").decode().then(() => this, () => this);
  }

  /** A small copy of the picture, null when the browser cannot show it. */
  async preview() {
    await this.drawn();
    return this.#part("shown").naturalWidth ? preview(this.#part("shown")) : null;
  }

  waiting() {
    this.#state("waiting", { overline: this.submission.name, verdict: "Looking…", meaning: "" });
  }

  /** Shows an answer of the API, given `at` that moment, and returns the sentence that tells it. */
  answered(answer, at) {
    const words = worded(answer);
    this.#state(answer.decision ?? "accepted", { ...words, meaning: [words.found, words.more].filter(Boolean).join(" ") });
    const { name, sample } = this.submission;
    this.#write("reference", sample ? `The Met catalogues it as ${sample.culture}.` : "");
    this.#part("bars").replaceChildren(...bars(answer.top ?? []));
    this.#part("unshown").hidden = !this.#part("shown").hidden;
    this.#evidence.offer(answer);
    this.#opinion.offer(answer);
    const record = `Model ${answer.model.name}, version ${answer.model.version}\nRequest ${answer.requestId}\n`;
    this.#part("record").replaceChildren(record, moment(at), this.submission.entry ? ", kept in this browser" : "");
    this.#part("print").hidden = false;
    this.report = new Report({ name, sample, answer, at, picture: this.#part("shown").hidden ? "" : this.#part("shown").src });
    const [map] = maps(answer);
    if (map) this.report.heat(map);
    return `${name}: ${words.spoken}`;
  }

  /** Shows what somebody said about the answer, undefined for nothing. */
  said(said) {
    this.#opinion.show(said);
    this.report.said(said);
  }

  /** Shows a Problem and returns the sentence that tells it. */
  failed(problem) {
    this.#state("failed", { overline: "No answer", verdict: problem.title, meaning: problem.detail });
    this.#write("record", problem.requestId ? `Request ${problem.requestId}` : "");
    this.#part("again").hidden = !problem.passing;
    return `${this.submission.name}: no answer. ${problem.title}. ${problem.detail}`.trim();
  }

  /** Whether there was no answer, and may be one if asked again. */
  get mayBeTriedAgain() {
    return !this.#part("again").hidden;
  }

  focus() {
    this.#part("verdict").focus();
  }

  remove() {
    this.removed.abort();
    URL.revokeObjectURL(this.#part("shown").src);
    this.element.remove();
    this.report?.element.remove();
  }

  #draw() {
    const { name, picture, sample } = this.submission;
    const image = this.#part("shown");
    image.hidden = !picture;
    this.drawable = picture ? this.show(picture).then(async (drawn) => drawn && !(await mayLie(picture))) : Promise.resolve(false);
    image.alt = sample ? sample.title : `Your picture ${name}`;
    this.#part("caption").replaceChildren(...(sample ? credit(sample) : [name]));
    this.#part("remove").setAttribute("aria-label", `Remove ${name}`);
    this.#part("again").setAttribute("aria-label", `Try again: ${name}`);
    this.#part("look").setAttribute("aria-label", `Where did it look? ${name}`);
    this.#part("print").setAttribute("aria-label", `Print report: ${name}`);
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
    this.#part("unshown").hidden = true;
    for (const button of ["again", "print"]) this.#part(button).hidden = true;
    this.#evidence.offer(null);
    this.#opinion.offer(null);
    this.#opinion.show(null);
  }

  #write(part, text) {
    this.#part(part).textContent = text;
  }

  #part(name) {
    return this.element.querySelector(`.${name}`);
  }
}

/** Whether `picture` is a WebP with EXIF, which says where its top is: the service goes by it, some browsers do not. */
async function mayLie(picture) {
  const head = new Uint8Array(await picture.slice(0, 21).arrayBuffer().catch(() => []));
  return String.fromCharCode(...head.slice(8, 16)) === "WEBPVP8X" && (head[20] & 8) > 0;
}

function credit({ title, artist, date, url }) {
  const link = document.createElement("a");
  link.href = url;
  link.rel = "noreferrer";
  link.textContent = title;
  return [`${artist}, `, link, `, ${date}. The\u00a0Met, CC0`];
}
