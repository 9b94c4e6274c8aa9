// Who is here and what is served.
import { computed, effect, signal } from "@preact/signals";
import { ApiError, get, post, session } from "./api";
import type { Role, Settings, State } from "./contract";
import { firstLanguage, setLanguage } from "./i18n";
import { outbox, recallLetters } from "./judgments";
import { socket } from "./socket";
import { forgetDrafts } from "./stored";

const ENGINE_WAIT_MS = 3_000;

export const state = signal<State | null>(null);
export const unreachable = signal<string | null>(null);
export const settings = signal<Settings | null>(null);

export const user = computed(() => state.value?.user ?? null);
export const model = computed(() => state.value?.model ?? null);

const RANK: Record<Role, number> = { viewer: 0, annotator: 1, manager: 2, owner: 3 };
/** Whether the person here has at least the rights of `role`. */
export const may = (role: Role): boolean => user.value !== null && RANK[user.value.role] >= RANK[role];

// Annotators see rewards only where the settings allow it: a number beside a word would lead their judgment.
export const seesRewards = computed(
  () =>
    !!state.value?.rewards &&
    (state.value.show_rewards ?? (may("manager") || !!settings.value?.show_rewards_to_annotators)),
);

/** Asks the gateway who is here, and opens the line and the outbox for them. */
export async function refresh(): Promise<void> {
  try {
    const found = await get<State>("/api/state");
    const before = user.value?.id;
    state.value = found;
    unreachable.value = null;
    if (found.user && found.user.id !== before) await enter(found.user);
    if (!found.user) leave();
  } catch (error) {
    unreachable.value = error instanceof Error ? error.message : String(error);
  }
}

async function enter(person: NonNullable<State["user"]>): Promise<void> {
  setLanguage(person.language ?? firstLanguage());
  socket.open();
  await outbox.open(person.id).catch(() => {});
  recallLetters(outbox.letters.value);
  settings.value = await get<Settings>("/api/settings").catch(() => null);
}

function leave(): void {
  socket.close();
  outbox.close();
}

export async function logOut(): Promise<void> {
  await post("/api/logout").catch((error: unknown) => {
    if (!(error instanceof ApiError)) throw error;
  });
  leave();
  forgetDrafts();
  await refresh();
}

// A session ends on the server; the line breaks and requests are refused. Who is here is asked anew then.
session.lost = () => {
  if (user.value) void refresh();
};
socket.onBroken = () => void refresh();

socket.listen((message) => {
  if (!state.value) return;
  if (message.type === "policy" && state.value.model)
    state.value = { ...state.value, model: { ...state.value.model, weight_version: `v${message.active}` } };
  if (message.type === "state") {
    const { type: _type, s: _s, ...changed } = message;
    state.value = { ...state.value, ...changed };
  }
});

// Until the engine is there it is asked for; then its news come by the line.
effect(() => {
  if (user.value && state.value?.engine !== "ready") setTimeout(() => void refresh(), ENGINE_WAIT_MS);
});

addEventListener("online", () => void outbox.flush());
addEventListener("visibilitychange", () => document.hidden || void outbox.flush());
