// How an answer is worded. `decision` is the model's own; nothing here weighs probabilities again.

const WORDS = {
  accepted: (answer) => ({
    overline: "Resembles objects catalogued as",
    verdict: answer.culture,
    found: `Probability ${share(answer.probability)}.`,
    spoken: `Resembles objects catalogued as ${answer.culture}, probability ${share(answer.probability)}.`,
  }),
  abstained: (answer) => ({
    overline: "The model does not commit itself",
    verdict: "Not sure",
    found: `Closest to objects catalogued as ${answer.culture}: ${share(answer.probability)}.`,
    more: level(answer),
    spoken: `Not sure. Closest to objects catalogued as ${answer.culture}, ${share(answer.probability)}.`,
  }),
  out_of_distribution: () => ({
    overline: "The model does not know",
    verdict: "Like none of the cultures it knows",
    found: "It may be no artwork, or one from another culture or of a kind that the model has never seen. Put no weight on the shares below.",
    spoken: "Like none of the cultures that the model knows.",
  }),
};

const DECISIONS = {
  accepted: ({ least }) => `Accepted. The likeliest culture reaches the ${share(least)} from which this model commits itself`,
  abstained: ({ least }) => `Abstained. The likeliest culture stays below the ${share(least)} from which this model commits itself`,
  out_of_distribution: () => "Out of distribution. The picture is like none of the cultures that the model knows",
};
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "short" });

function level({ explanation }) {
  const least = explanation?.decision?.thresholds?.least_probability;
  return least ? `This model commits itself from ${share(least)} on.` : "That is too little for this model to commit itself.";
}

/** Overline, verdict, what was `found` and sometimes `more` to show, and one sentence for a screen reader. */
export function worded(answer) {
  return (WORDS[answer.decision] ?? WORDS.accepted)(answer);
}

/** A probability as a person reads it: no false precision, and never "0 %" or "100 %" for what is neither. */
export function share(probability) {
  if (probability > 0.99 && probability < 1) return "over 99\u00a0%";
  if (probability < 0.01 && probability > 0) return "under 1\u00a0%";
  return `${Math.round(probability * 100)}\u00a0%`;
}

/** Why it was decided so, in sentences with the thresholds, as a report tells it. */
export function decided({ decision, explanation }) {
  const { ood_score: strangeness, thresholds = {} } = explanation?.decision ?? {};
  const { least_probability: least, greatest_ood_score: greatest } = thresholds;
  if (least == null || !DECISIONS[decision]) return "This model has no thresholds: every answer counts as accepted.";
  const sentence = `${DECISIONS[decision]({ least })}.`;
  if (strangeness == null || greatest == null) return sentence;
  const compared = strangeness > greatest ? "above" : "within";
  return `${sentence} Its measure of strangeness is ${strangeness.toFixed(2)}, ${compared} the limit of ${greatest.toFixed(2)}.`;
}

/** What somebody `said` about an answer, in sentences. */
export function opinion({ culture, note, at }) {
  return `Judged to be ${culture}${note ? `: “${note}”` : ""}. Told to the service on ${MOMENT.format(at)}.`;
}

/** An answer in a few words, for a list. */
export function brief({ decision, culture, probability }) {
  if (decision === "out_of_distribution") return "Like none of the cultures it knows";
  const found = `${culture}, ${share(probability)}`;
  return decision === "abstained" ? `Not sure: closest to ${found}` : found;
}

/** A <time> for a moment in milliseconds, on this computer's clock. */
export function moment(at) {
  const element = document.createElement("time");
  element.dateTime = new Date(at).toISOString();
  element.textContent = MOMENT.format(at);
  return element;
}
