// What the person in front of the page believes, sent to the service that keeps it for the next training.

import { say } from "./api.js";
import { opinion } from "./words.js";

export class Opinion {
  /** `part` finds a part of the card by its class; `onSaid({culture, note, at})` hears of what the service has kept. */
  constructor(part, { signal, onSaid }) {
    this.#part = part;
    this.#signal = signal;
    this.#onSaid = onSaid;
    part("opinion-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    // Another judgement is another message; the same one sent again, because no answer came, is the same message.
    part("opinion-form").addEventListener("input", () => (this.#key = newKey()));
  }

  #part;
  #signal;
  #onSaid;
  #answer = null;
  #key = newKey();

  /** Asks for a judgement of `answer` where the service keeps such; null for no answer. */
  offer(answer) {
    this.#answer = answer;
    this.#part("opinion").hidden = !answer || !("feedback" in document.body.dataset);
    const known = (answer?.top ?? []).map(({ culture }) => new Option(culture));
    if (known.length) document.getElementById("cultures").replaceChildren(...known);
  }

  /** Shows what was said. */
  show(said) {
    this.#part("opinion-words").textContent = said ? opinion(said) : "";
  }

  async #send() {
    const culture = this.#part("opinion-culture").value.trim();
    const note = this.#part("opinion-note").value.trim();
    const words = this.#part("opinion-words");
    words.textContent = "Sending…";
    try {
      await say(this.#answer, { culture, note }, this.#key, this.#signal);
      this.#onSaid({ culture, note, at: Date.now() });
    } catch (problem) {
      words.textContent = ["Not kept", problem.title ?? String(problem), problem.detail].filter(Boolean).join(". ");
    }
  }
}

/** Random, and not `crypto.randomUUID`, which plain HTTP to another machine does not have. */
function newKey() {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(16).padStart(8, "0")).join("");
}
