// What went wrong, in words for people.

// By the service's own types of problems. What is not here, the service words well enough itself.
const WORDS = {
  "/problems/unsupported-media": [
    "Not a picture that the service reads",
    "It reads JPEG, PNG, WebP, AVIF, TIFF and GIF, and goes by what is in the file, not by its name.",
  ],
  "/problems/undecodable-image": [
    "The picture is broken",
    "The file begins like a picture, but the rest is damaged or missing. Perhaps it was not copied completely.",
  ],
  "/problems/model-unavailable": ["The model is not available at the moment", "It may just be starting again."],
  "/problems/overloaded": ["Too many requests at the moment", "Others are asking the service too."],
  "/problems/over-quota": ["Too many requests in a short time", "The service takes only so many from one sender."],
  "/problems/timeout": ["The answer took too long", "The service is very busy, or its model hangs."],
  "/problems/slow-client": ["The picture took too long to arrive", "The connection may be slow, or have been interrupted."],
  "/problems/broken-contract": ["The model gave an impossible answer", "Whoever runs the service finds the cause under the number of this request."],
  "/problems/internal": ["The service failed", "Whoever runs it finds the cause under the number of this request."],
};

// What somebody can do, after the service's own words.
const ADVICE = {
  "/problems/too-large": "A smaller copy will do, for example as JPEG: the model looks at a small one anyway.",
};

/** What went wrong, in words for people. `type` is the service's, null when it did not say it; `requestId` finds it in its log;
 * `passing`: it may work if asked again. */
export class Problem extends Error {
  constructor(title, detail = "", { type = null, requestId = null, passing = true } = {}) {
    super(title);
    this.title = title;
    this.type = type;
    // A clause becomes a sentence. The service repeats the title where it has no more to say.
    this.detail = detail === title ? "" : detail.replace(/^\w/, (first) => first.toUpperCase()).replace(/(?<=\w|\))$/, ".");
    this.requestId = requestId;
    this.passing = passing;
  }
}

/** The Problem that `response` tells with a `document` of RFC 9457, or without one (null) when it is none of the service's own. */
export function problemOf(response, document) {
  const status = document?.status ?? response.status;
  const passing = status < 400 || status >= 500 || status === 408 || status === 429;
  const requestId = document?.request_id ?? response.headers.get("X-Request-ID");
  const [title, detail = ""] = WORDS[document?.type] ?? (document?.title ? [document.title, document.detail] : foreign(status));
  const { detail: sentence } = new Problem(title, detail);
  return new Problem(title, [sentence, ADVICE[document?.type], passing && again(response)].filter(Boolean).join(" "), { type: document?.type, requestId, passing });
}

/** What something between the page and the service said by its status alone. */
function foreign(status) {
  if (status === 413) return ["The file is too large", "Something between this page and the service takes no files of this size."];
  if (status === 429) return WORDS["/problems/over-quota"];
  if (status >= 500) return ["The service is not available at the moment", `It may just be starting again (HTTP status ${status}).`];
  return ["The service gave no answer", `What came instead had HTTP status ${status}.`];
}

function again(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  const when = seconds > 1 ? `in ${seconds} seconds` : "in a moment";
  return `Nothing is lost: try again ${when}.`;
}
