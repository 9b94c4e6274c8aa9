// The conversation on screen and the list of those before it.
import { computed, signal } from "@preact/signals";
import { get, post, remove } from "./api";
import type { Conversation, ConversationHead, Message } from "./contract";
import { type Answer, type Generation, generate, isRunning, storedAnswer, textOf } from "./generation";
import { recall } from "./judgments";
import { complain } from "./notices";
import { go } from "./router";
import { may, model } from "./session";
import { stored } from "./stored";

/** What a person wrote, and the answers to it; several where it was answered again. */
export type Exchange = { text: string; answers: Answer[]; shown: number };

export const conversations = signal<ConversationHead[] | null>(null);
export const conversationId = signal<string | null>(null);
export const exchanges = signal<readonly Exchange[]>([]);
export const loading = signal(false);
export const temperature = stored<number>("temperature", 0.8);
const current = signal<Generation | null>(null);

export const busy = computed(() => current.value?.answers.some(isRunning) ?? false);
export const stop = () => current.value?.cancel();

export async function listConversations(): Promise<void> {
  const found = await get<{ items: ConversationHead[] }>("/api/conversations").catch(() => null);
  if (found) conversations.value = found.items;
}

/** Shows a stored conversation, or an empty one for null. */
export async function show(id: string | null): Promise<void> {
  if (id === conversationId.value) return;
  conversationId.value = id;
  exchanges.value = [];
  current.value = null;
  if (!id) return;
  loading.value = true;
  try {
    const found = await get<Conversation>(`/api/conversations/${id}`);
    if (conversationId.value !== id) return;
    recall(found.turns.flatMap((turn) => turn.completion ?? []));
    exchanges.value = gather(found);
  } catch (error) {
    complain(error);
    go("/", true);
  } finally {
    loading.value = false;
  }
}

/** Turns as exchanges: answers in a row answer the same words. */
export function gather({ turns }: Conversation): Exchange[] {
  const found: Exchange[] = [];
  for (const turn of turns) {
    if (turn.role === "user") found.push({ text: turn.content, answers: [], shown: 0 });
    else if (turn.role === "assistant") {
      const last = found.at(-1) ?? { text: "", answers: [], shown: 0 };
      if (!found.length) found.push(last);
      last.answers.push(
        storedAnswer(
          turn.completion ?? {
            id: turn.id,
            choice: 0,
            text: turn.content,
            tokens: [],
            finish_reason: "stop",
            weight_version: null,
            reward_version: null,
            created_at: "",
            feedback: [],
          },
        ),
      );
      last.shown = last.answers.length - 1;
    }
  }
  return found;
}

/** Says `text` and lets the model answer, or continue it where it is a base model. */
export async function send(text: string): Promise<void> {
  if (busy.value) return;
  const before = exchanges.value;
  exchanges.value = [...before, { text, answers: [], shown: 0 }];
  await answer(before.length);
}

export const again = (index: number): Promise<void> => (busy.value ? Promise.resolve() : answer(index));

export function showAlternative(index: number, shown: number): void {
  exchanges.value = exchanges.value.map((one, at) => (at === index ? { ...one, shown } : one));
}

async function answer(index: number): Promise<void> {
  try {
    await begin();
  } catch (error) {
    complain(error);
  }
  const asked = exchanges.value.slice(0, index + 1);
  const generation = generate({
    conversation_id: conversationId.value,
    ...(model.value?.chat === false ? { prompt: asText(asked) } : { messages: asMessages(asked) }),
    settings: { temperature: temperature.value, max_tokens: maxTokens(), seed: null, choices: 1 },
    blind: false,
  });
  current.value = generation;
  exchanges.value = asked.map((one, at) =>
    at === index
      ? { ...one, answers: [...one.answers, ...generation.answers], shown: one.answers.length }
      : one,
  );
  if (index === 0) setTimeout(() => void listConversations(), 1_500);
}

async function begin(): Promise<void> {
  // Who only looks keeps no conversations.
  if (conversationId.value || !may("annotator")) return;
  const { id } = await post<{ id: string }>("/api/conversations", {});
  conversationId.value = id;
  go(`/chat/${id}`);
}

// Half of what the model can hold, so that a conversation does not fill it in one answer.
const maxTokens = () => Math.max(16, Math.min(512, Math.floor((model.value?.context ?? 512) / 2)));

const shownText = ({ answers, shown }: Exchange): string => (answers[shown] ? textOf(answers[shown]) : "");

/** The messages up to the last exchange, whose answer is asked for. */
export function asMessages(asked: readonly Exchange[]): Message[] {
  return asked.flatMap((one, index): Message[] => {
    const said: Message = { role: "user", content: one.text };
    return index === asked.length - 1 ? [said] : [said, { role: "assistant", content: shownText(one) }];
  });
}

export const asText = (asked: readonly Exchange[]): string =>
  asked.map((one, index) => one.text + (index === asked.length - 1 ? "" : shownText(one))).join("");

export async function forget(id: string): Promise<void> {
  await remove(`/api/conversations/${id}`);
  conversations.value = conversations.value?.filter((one) => one.id !== id) ?? null;
  if (conversationId.value === id) go("/");
}
