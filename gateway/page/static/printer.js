// What goes on paper: the report of every answered card, or of the one whose button was pressed.

const [reports, all] = ["reports", "print-all"].map((id) => document.getElementById(id));

export class Printer {
  /** `cards` gives the cards in the order of the page. */
  constructor(cards) {
    this.#cards = cards;
    all.addEventListener("click", () => print());
    addEventListener("beforeprint", () => this.#only(this.#wanted)); // also when it is the browser's own menu that prints
    addEventListener("afterprint", () => this.#only(null));
  }

  #cards;
  #wanted = null;
  #title = document.title;

  /** Lays the reports out as the cards hang. */
  refresh() {
    const laid = this.#cards().flatMap(({ report }) => report?.element ?? []);
    reports.replaceChildren(...laid);
    all.hidden = laid.length < 2;
  }

  /** Prints one card's report. */
  one = (card) => {
    this.#wanted = card;
    print();
    this.#wanted = null;
  };

  #only(card) {
    document.title = card ? `Whence ${card.submission.name}` : this.#title; // browsers name the file after it
    for (const element of reports.children) element.hidden = Boolean(card) && element !== card.report.element;
  }
}
