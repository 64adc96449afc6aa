// One printed page for one picture and its answer. On the screen it is not shown; the style sheet gives it the page.

import { bars } from "./bars.js";
import { PAPER, veil } from "./heat.js";
import { neighbours } from "./neighbours.js";
import { decided, moment, opinion, worded } from "./words.js";

const MOST_BARS = 10;
const MOST_NEIGHBOURS = 8; // what fits below the rest on the smaller of A4 and US Letter

export class Report {
  /** `picture` is an address that an <img> can show, "" when the browser cannot show the picture. */
  constructor({ name, sample, picture, answer, at }) {
    this.element = document.getElementById("report").content.cloneNode(true).firstElementChild;
    this.#answer(answer, at);
    this.#figures(name, sample, picture);
    this.#resembled(answer.explanation?.neighbours?.objects ?? []);
    this.#part("facts").replaceChildren(...facts({ name, answer }));
  }

  /** Shows where the model looked for a culture, given its map. */
  async heat({ culture, png }) {
    if (!this.#part("picture").src) return;
    await veil(this.#part("heat"), png, PAPER);
    this.#part("looked").hidden = false;
    this.#part("looked-words").textContent = `Where it looked: what spoke for ${culture} is in full colour.`;
  }

  /** Shows what somebody said about the answer, undefined for nothing. */
  said(said) {
    this.#write("said", said ? opinion(said) : "");
  }

  #answer(answer, at) {
    const { overline, verdict, found } = worded(answer);
    this.#write("overline", overline);
    this.#write("verdict", verdict);
    this.#write("found", found);
    this.#write("decision", decided(answer));
    this.#part("moment").append(moment(at));
    this.#part("bars").replaceChildren(...bars(answer.top ?? [], MOST_BARS));
  }

  #figures(name, sample, picture) {
    const caption = sample ? `${sample.artist}, ${sample.title}, ${sample.date}. The Met, CC0. ${sample.url}` : name;
    this.#write("caption", caption);
    this.#write("reference", sample ? `The Met catalogues it as ${sample.culture}.` : "");
    this.#part("unshown").hidden = Boolean(picture);
    for (const image of this.element.querySelectorAll("img")) {
      if (picture) image.src = picture;
      else image.remove();
    }
  }

  #resembled(objects) {
    this.#part("neighbours").hidden = !objects.length;
    this.#part("neighbour-list").replaceChildren(...neighbours(objects.slice(0, MOST_NEIGHBOURS), { printed: true }));
  }

  #write(part, text) {
    this.#part(part).textContent = text;
  }

  #part(name) {
    return this.element.querySelector(`.report-${name}`);
  }
}

/** What a third party needs to give the answer again: terms and descriptions. */
function facts({ name, answer: { requestId, model, explanation } }) {
  const { provenance, neighbours: resembled } = explanation ?? {};
  const { release_sha256: release, preprocessing, calibration } = provenance?.model ?? {};
  const software = Object.entries(provenance?.software ?? {}).map(([what, version]) => version && `${what} ${version}`);
  const told = {
    "File": name,
    "SHA-256 of the file": provenance?.picture_sha256,
    "Request": requestId,
    "Model": `${model.name}, version ${model.version}`,
    "SHA-256 of the release": release,
    "Calibration": calibration && Object.entries(calibration).map(([what, value]) => `${what} ${value}`).join(", "),
    "Index of objects": provenance?.index_version ?? resembled?.index?.version ?? resembled?.notice,
    "Preprocessing": [provenance?.pixels, preprocessing].filter(Boolean).join("; "),
    "Software": software.filter(Boolean).join(", "),
  };
  return Object.entries(told).filter(([, description]) => description).map(([term, description]) => {
    const row = document.createElement("div");
    for (const [tag, text] of [["dt", term], ["dd", description]]) {
      row.append(Object.assign(document.createElement(tag), { textContent: text }));
    }
    return row;
  });
}
