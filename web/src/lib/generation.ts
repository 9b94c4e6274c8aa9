// Answers as they stream in: one buffer of tokens each, filled at most once per drawn frame.
import { type Signal, signal } from "@preact/signals";
import type { Completion, Generate, ServerMessage, Token } from "./contract";
import { t } from "./i18n";
import { socket } from "./socket";

export type Phase = "waiting" | "streaming" | "done" | "cancelled" | "failed";

/** One answer, whole or on its way. */
export type Answer = {
  choice: number;
  completionId: Signal<string | null>;
  tokens: Signal<Token[]>;
  phase: Signal<Phase>;
  version: Signal<string | null>;
  error: Signal<string | null>;
  conversationId: Signal<string | null>;
  finishReason: Signal<string | null>;
};

export type Generation = {
  request: string;
  answers: Answer[];
  cancel: () => void;
  epoch: number; // of the line, when it was asked
  heardAt: number; // when the last message about it came, on the clock of performance.now()
};

const PATIENCE_MS = 8_000;
const running = new Map<string, Generation>();
const arrived: [Answer, Token[]][] = [];
let drawing = false;

export function newAnswer(choice = 0): Answer {
  return {
    choice,
    completionId: signal(null),
    tokens: signal([]),
    phase: signal<Phase>("waiting"),
    version: signal(null),
    error: signal(null),
    conversationId: signal(null),
    finishReason: signal(null),
  };
}

/** A stored completion as a finished answer. */
export function storedAnswer(completion: Completion): Answer {
  const answer = newAnswer(completion.choice);
  answer.completionId.value = completion.id;
  answer.tokens.value = completion.tokens.length
    ? completion.tokens
    : [{ text: completion.text, logprob: null, reward: null, version: completion.weight_version }];
  answer.phase.value = completion.finish_reason === "cancelled" ? "cancelled" : "done";
  answer.version.value = completion.weight_version;
  answer.finishReason.value = completion.finish_reason;
  return answer;
}

export const textOf = (answer: Answer): string => answer.tokens.value.map((token) => token.text).join("");
export const isRunning = (answer: Answer): boolean =>
  answer.phase.value === "waiting" || answer.phase.value === "streaming";

/** Asks for one answer or several; they fill as the tokens come. */
export function generate(wish: Omit<Generate, "type" | "request">): Generation {
  const request = crypto.randomUUID();
  const answers = Array.from({ length: wish.settings.choices }, (_, choice) => newAnswer(choice));
  const generation: Generation = {
    request,
    answers,
    epoch: socket.epoch,
    heardAt: performance.now(),
    cancel: () => void socket.send({ type: "cancel", request }).catch(() => {}),
  };
  running.set(request, generation);
  void ask(generation, { type: "generate", request, ...wish });
  return generation;
}

async function ask(generation: Generation, wish: Generate): Promise<void> {
  try {
    await socket.ready(PATIENCE_MS);
    generation.epoch = socket.epoch;
    const ack = await socket.send(wish);
    if (!ack.ok) fail(generation, typeof ack.error === "string" ? ack.error : (ack.error?.message ?? ""));
  } catch {
    // A request that left before the line broke may still bring its answer when the line is mended.
    if (socket.line.value === "broken") await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
    if (generation.answers.some((one) => one.phase.value === "waiting")) fail(generation, t("line.down"));
  }
}

function fail(generation: Generation, message: string): void {
  running.delete(generation.request);
  for (const answer of generation.answers) {
    if (!isRunning(answer)) continue;
    answer.error.value = message;
    answer.phase.value = "failed";
  }
}

function draw(): void {
  drawing = false;
  const batches = new Map<Answer, Token[]>();
  for (const [answer, tokens] of arrived) batches.set(answer, [...(batches.get(answer) ?? []), ...tokens]);
  arrived.length = 0;
  for (const [answer, tokens] of batches) answer.tokens.value = [...answer.tokens.value, ...tokens];
}

function append(answer: Answer, tokens: Token[]): void {
  arrived.push([answer, tokens]);
  if (drawing) return;
  drawing = true;
  // A hidden tab draws no frames; its buffer must not wait for them.
  if (document.hidden) setTimeout(draw, 100);
  else requestAnimationFrame(draw);
}

function hear(message: ServerMessage): void {
  if (
    message.type !== "started" &&
    message.type !== "tokens" &&
    message.type !== "finished" &&
    message.type !== "failed"
  )
    return;
  const generation = running.get(message.request);
  if (!generation) return;
  generation.heardAt = performance.now();
  if (message.type === "started") {
    for (const answer of generation.answers) {
      answer.completionId.value = message.completion_id;
      answer.version.value = message.weight_version;
      answer.conversationId.value = message.conversation_id;
    }
  } else if (message.type === "tokens") {
    const answer = generation.answers[message.choice];
    if (!answer) return;
    answer.phase.value = "streaming";
    append(answer, message.tokens);
  } else if (message.type === "finished") {
    if (arrived.length) draw();
    const answer = generation.answers[message.choice];
    if (!answer) return;
    answer.finishReason.value = message.finish_reason;
    answer.version.value =
      message.weight_version ?? answer.tokens.value.at(-1)?.version ?? answer.version.value;
    answer.phase.value = message.finish_reason === "cancelled" ? "cancelled" : "done";
    if (!generation.answers.some(isRunning)) running.delete(message.request);
  } else {
    if (arrived.length) draw();
    fail(generation, message.error.message);
  }
}

socket.listen(hear);
// What was asked before the line broke goes on where the server remembers it, and is given up where it does not.
socket.onMended = (remembered) => {
  const before = [...running.values()].filter((generation) => generation.epoch < socket.epoch);
  if (!remembered) for (const generation of before) fail(generation, t("line.down"));
  const mended = performance.now();
  setTimeout(() => {
    for (const generation of before) if (generation.heardAt < mended) fail(generation, t("line.down"));
  }, PATIENCE_MS);
};
