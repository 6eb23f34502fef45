// Source of answers: the server, or the answers recorded when the page was exported.

class NotRecorded extends Error {}

const recordedNode = document.getElementById("recorded");
const recorded = recordedNode ? JSON.parse(recordedNode.textContent) : null;

// The same text for the same parameters, in JavaScript and Python: sorted keys, no spaces, ASCII.
const canonical = (value) => {
  if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
  if (value !== null && typeof value === "object") {
    const keys = Object.keys(value).filter((key) => value[key] !== undefined && value[key] !== null).sort();
    return "{" + keys.map((key) => canonical(key) + ":" + canonical(value[key])).join(",") + "}";
  }
  if (typeof value === "string") {
    return '"' + [...JSON.stringify(value).slice(1, -1)].join("").replace(/[\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")) + '"';
  }
  return JSON.stringify(value);
};

const KEY = "gristmill-api-key";

const source = {
  live: recorded === null,
  has: (name, parameters = {}) => recorded === null || name + canonical(parameters) in recorded,

  // The answer to POST /v1/inspect/NAME. Throws NotRecorded, or an Error with the server's message.
  async ask(name, parameters = {}, signal = undefined) {
    if (recorded) {
      const key = name + canonical(parameters);
      if (!(key in recorded)) throw new NotRecorded("This was not recorded; serve the run to see it.");
      return recorded[key];
    }
    return (await source.post("/v1/inspect/" + name, parameters, signal)).json();
  },

  // Description of a long operation of the server, if it reports one.
  async doing() {
    const answer = recorded ? null : await fetch("/v1/inspect", { headers: source.headers() }).catch(() => null);
    return answer?.ok ? (await answer.json()).doing : "";
  },

  headers() {
    const key = sessionStorage.getItem(KEY);
    return key ? { Authorization: "Bearer " + key } : {};
  },

  async post(path, body, signal) {
    const headers = { "Content-Type": "application/json", ...source.headers() };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal }).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("The server does not answer: it was stopped or cannot be reached.");
    });
    if (answer.ok) return answer;
    if (answer.status === 401) document.dispatchEvent(new Event("key-wanted"));
    const failure = new Error("The server answers " + answer.status + ".");
    try {
      const { message, param } = (await answer.json()).error;
      failure.message = message;
      failure.param = param; // the invalid field
    } catch {
      // not JSON: use the status
    }
    throw failure;
  },

  // Stream of generated text: an async iterator over the choices of an answer.
  complete: (parameters, signal) => source.stream("/v1/completions", parameters, signal),
  async *stream(path, parameters, signal) {
    if (recorded) throw new NotRecorded("Only the served page generates text.");
    const answer = await source.post(path, { ...parameters, stream: true }, signal);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new Error("The connection to the server was lost.");
      });
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const piece = JSON.parse(data);
        if (piece.error) throw new Error(piece.error.message);
        for (const choice of piece.choices) yield choice;
      }
    }
  },
};
