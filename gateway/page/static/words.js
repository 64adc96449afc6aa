// How an answer is worded. `decision` is the model's own; nothing here weighs probabilities again.

const WORDS = {
  accepted: (answer) => ({
    overline: "Resembles objects catalogued as",
    verdict: answer.culture,
    meaning: `Probability ${share(answer.probability)}.`,
    spoken: `Resembles objects catalogued as ${answer.culture}, probability ${share(answer.probability)}.`,
  }),
  abstained: (answer) => ({
    overline: "The model does not commit itself",
    verdict: "Not sure",
    meaning: `Closest to objects catalogued as ${answer.culture}: ${share(answer.probability)}. ${level(answer)}`,
    spoken: `Not sure. Closest to objects catalogued as ${answer.culture}, ${share(answer.probability)}.`,
  }),
  out_of_distribution: () => ({
    overline: "The model does not know",
    verdict: "Unlike anything it was trained on",
    meaning: "It may be no artwork, or one from a culture or of a kind that the model has never seen. Put no weight on the shares below.",
    spoken: "Unlike anything the model was trained on.",
  }),
};

function level({ explanation }) {
  const least = explanation?.decision?.thresholds?.least_probability;
  return least ? `This model commits itself from ${share(least)} on.` : "That is too little for this model to commit itself.";
}

/** Overline, verdict and meaning to show, and one sentence for a screen reader. */
export function worded(answer) {
  return (WORDS[answer.decision] ?? WORDS.accepted)(answer);
}

/** A probability as a person reads it: no false precision, and never "0 %" or "100 %" for what is neither. */
export function share(probability) {
  if (probability > 0.99 && probability < 1) return "over 99\u00a0%";
  if (probability < 0.01 && probability > 0) return "under 1\u00a0%";
  return `${Math.round(probability * 100)}\u00a0%`;
}
