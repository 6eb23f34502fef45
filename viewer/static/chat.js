// @ts-check
// Page "Chat": talk to a finetuned model. The conversation is kept while other pages are shown.

const chatState = { turns: [], system: "", temperature: 0 };
const CHAT_WHO = { user: "You", assistant: "Assistant", system: "System message" };
const CHAT_ENDS = { length: "The answer was cut off: the context of the model is full.", tool_calls: "The answer was ended: it called tools too often." };

// The messages that the API expects: the steps of an answer before it, without what only this page shows.
const chatMessages = (turns, system = "") => [
  ...(system.trim() ? [{ role: "system", content: system }] : []),
  ...turns.flatMap(({ steps = [], ended, ...turn }) => [...steps, turn]).map(({ sources, ...message }) => message)];

// The reverse: messages as turns, each answer with its steps.
const chatTurns = (messages) => {
  const turns = [];
  let steps = [];
  for (const message of messages) {
    if (message.role === "tool" || message.tool_calls) steps.push(message);
    else {
      turns.push({ ...message, steps, ended: CHAT_ENDS[message.finish_reason] });
      steps = [];
    }
  }
  if (steps.length) turns.push({ role: "assistant", content: "", steps, ended: CHAT_ENDS.tool_calls });
  return turns;
};

const chatText = (text) => h("div", { class: "chat-text", dir: "auto" }, plainText(text));

const chatCall = ({ function: { name, arguments: given } }) => {
  const values = typeof given === "string" ? JSON.parse(given) : given;
  return plainText(`${name}(${Object.entries(values).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join(", ")})`);
};

// Calls of tools with their results, which follow them in the same order.
const chatSteps = (steps) => steps.map((step, at) => (step.role === "tool" ? null : [
  step.content ? chatText(step.content) : null,
  (step.tool_calls || []).map((call, i) => h("details", { class: "chat-step" }, h("summary", {}, chatCall(call)), chatText(steps[at + 1 + i]?.content ?? "Running …")))]));

// Each source opens its document, of the run that this one was finetuned from.
const chatSources = (steps) => {
  const found = new Map(steps.flatMap((step) => step.sources || []).map((one) => [one.document, one]));
  if (!found.size) return null;
  return h("div", { class: "chat-sources" }, "Sources", h("ol", {}, [...found.values()].map((one) => {
    const name = dataAddress(one.url, DATA_SHORT);
    const recordedOrLive = source.has("document", { number: one.document, base: true, ...dataCharacters() });
    return h("li", {}, recordedOrLive ? dataLink("document", { number: one.document, base: 1 }, name) : name, h("q", { dir: "auto" }, plainText(one.passage.slice(0, 300))));
  })));
};

const chatTurn = ({ role, content, steps = [], ended = "" }) => {
  const text = chatText(content);
  const node = h("article", { class: "chat-turn chat-" + role }, h("p", { class: "chat-who" }, CHAT_WHO[role]), chatSteps(steps), text, chatSources(steps), ended ? note(ended) : null);
  node.text = text;
  return node;
};

// The tokens of the conversation, computed when opened.
const chatTokens = (messages) => {
  const place = h("div", {});
  const show = () => context.run(place, async (signal) => {
    if (!node.open) return;
    const given = messages();
    if (!given.length) { put(place, note("The conversation is empty.")); return; }
    const { tokens } = await source.ask("chat_tokens", { messages: given }, signal);
    const said = h("p", { class: "note", role: "status" }, `${plural(tokens.length, "token")} of ${whole(context.model.context_length)} in the context.`);
    const kinds = (token) => [token.special && "a special token", token.trained && "written by the model"].filter(Boolean).join(", ");
    put(place, tokenStrip("The conversation as tokens.", tokens.map(({ text, special }) => ({ text: special ? text : tokensLines(text) })), {
      decorate: (span, _, index) => { for (const kind of ["special", "trained"]) span.classList.toggle("chat-" + kind, tokens[index][kind]); },
      choose: (index) => { if (index >= 0) said.textContent = [`${tokens[index].text}: token ${whole(index + 1)} of ${whole(tokens.length)}, id ${tokens[index].id}`, kinds(tokens[index])].filter(Boolean).join(", "); },
    }), said);
  });
  const node = h("details", { class: "chat-tokens", on: { toggle: show } }, h("summary", {}, "Tokens"),
    note("The conversation as the model reads it. ", h("b", {}, "Bold"), " tokens are special: from the chat template or the model, never from the text of a message. ", h("u", {}, "Underlined"), " tokens were written by the model; in training, only they have a loss."), place);
  node.show = show;
  return node;
};

const chatRecorded = (root) => {
  const place = h("div", {});
  root.append(note("These conversations were recorded. The assistant answered each question once, with its tools and the likeliest tokens. To talk to it: ", h("code", {}, serveCommand("", "chat"))), place);
  context.run(place, async (signal) => {
    const { conversations } = await source.ask("chat", {}, signal);
    put(place, conversations.map((messages, number) => h("section", { class: "chat-recorded", "aria-label": `Conversation ${number + 1}` }, chatTurns(messages).map(chatTurn))));
  });
};

const chatMount = (root, context) => {
  if (!source.live) { chatRecorded(root); return {}; }
  const log = h("div", { class: "chat-log", role: "log", "aria-label": "Conversation" }, chatState.turns.map(chatTurn));
  const status = h("div", { class: "note", role: "status" });
  const field = h("textarea", { id: "chat-message", rows: 3, maxlength: 20000, dir: "auto", on: { keydown: (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); } } } });
  const system = h("textarea", { id: "chat-system", rows: 2, maxlength: 20000, dir: "auto", on: { input: () => { chatState.system = system.value; } } });
  system.value = chatState.system;
  const button = (name, act) => h("button", { type: "button", on: { click: act } }, name);
  const stop = button("Stop", () => context.cancel(status));
  const sending = button("Send", () => send());
  const again = button("Regenerate", () => {
    if (chatState.turns.at(-1).role === "assistant") { chatState.turns.pop(); log.lastChild.remove(); }
    answer();
  });
  const anew = button("New conversation", () => { context.cancel(status); chatState.turns = []; log.replaceChildren(); status.replaceChildren(); showState(); field.focus(); });
  const tokens = chatTokens(() => (chatState.turns.length ? chatMessages(chatState.turns, chatState.system) : []));
  const served = h("div", { class: "note" });
  let pending = null; // the answer that is being generated
  const showState = () => {
    stop.disabled = !pending;
    sending.disabled = Boolean(pending);
    again.disabled = Boolean(pending) || !chatState.turns.length;
    log.setAttribute("aria-busy", String(Boolean(pending)));
    served.textContent = shared.step !== null && shared.step !== context.model.step ? `The served model answers, of step ${whole(context.model.step)}.` : "";
    if (!pending) tokens.show();
  };

  const send = () => {
    if (pending || !field.value.trim()) return;
    const turn = { role: "user", content: field.value };
    chatState.turns.push(turn);
    log.append(chatTurn(turn));
    field.value = "";
    answer();
  };

  const answer = async () => {
    const { turns } = chatState;
    const turn = { role: "assistant", content: "", steps: [], ended: "Stopped." };
    let node = chatTurn({ ...turn, ended: "" });
    const focused = [sending, again].includes(document.activeElement);
    pending = turn;
    log.append(node);
    status.textContent = "Answering …";
    showState();
    if (focused) stop.focus();
    form.scrollIntoView({ block: "nearest" });
    await context.run(status, async (signal) => {
      const asked = { messages: chatMessages(turns, chatState.system), temperature: chatState.temperature, truncation: "auto", seed: Math.floor(2 ** 31 * Math.random()) };
      for await (const { delta, finish_reason: reason } of source.stream("/v1/chat/completions", asked, signal)) {
        const follows = form.getBoundingClientRect().bottom < innerHeight + 50; // unless the reader scrolled up
        turn.content += delta.content || "";
        for (const step of delta.steps || []) {
          if (step.role === "assistant") turn.content = ""; // the text before a call is part of the step
          turn.steps.push(step);
        }
        if (delta.tool_calls) turn.tool_calls = delta.tool_calls.map(({ index, ...call }) => call);
        if (reason) turn.ended = CHAT_ENDS[reason] || (turn.content ? "" : "The answer is empty.");
        if (delta.steps) { const next = chatTurn({ ...turn, ended: "" }); node.replaceWith(next); node = next; }
        node.text.textContent = plainText(turn.content);
        if (follows) form.scrollIntoView({ block: "nearest" });
      }
    });
    if (turns !== chatState.turns) return; // a new conversation
    const failed = status.querySelector(".problem");
    const kept = turn.content || turn.ended !== "Stopped.";
    if (kept) turns.push(turn);
    if (kept && turn.ended) node.append(note(turn.ended));
    if (!kept) node.remove();
    if (!failed) status.textContent = kept ? "" : "Stopped.";
    pending = null;
    const stopped = document.activeElement === stop;
    showState();
    if (stopped) field.focus();
  };

  const form = h("div", { class: "chat-form" },
    h("div", { class: "prompt-box" }, h("label", { for: "chat-message" }, "Message (Enter sends, Shift+Enter starts a line)"), field),
    h("p", { class: "chat-buttons" }, sending, stop, again, anew), served, status);
  root.append(log, form,
    h("div", { class: "split" },
      slider("Temperature (0: likeliest)", { min: 0, max: 2, step: 0.1, value: chatState.temperature, on: (value) => { chatState.temperature = value; } }),
      h("div", { class: "prompt-box" }, h("label", { for: "chat-system" }, "System message"), system)),
    tokens);
  showState();
  return { update: showState, unmount() { context.cancel(status); } };
};

pages.push({
  id: "chat", title: "Chat",
  about: "A finetuned model continues a conversation. It can call tools, such as a search in the pages that it was trained on; their results are inserted into the conversation.",
  mount: chatMount,
});
