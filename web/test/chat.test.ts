import { beforeAll, describe, expect, it, vi } from "vitest";
import type { Completion, Conversation } from "../src/lib/contract";

// The modules of the page look at the window when they load; what is tested here does not.
beforeAll(() => {
  const nothing = () => {};
  vi.stubGlobal("document", { addEventListener: nothing, documentElement: { dataset: {} } });
  vi.stubGlobal("addEventListener", nothing);
  vi.stubGlobal("location", { pathname: "/", hash: "", href: "http://localhost/" });
  vi.stubGlobal("indexedDB", {});
});

const completion = (id: string, text: string): Completion => ({
  id,
  choice: 0,
  text,
  tokens: [],
  finish_reason: "stop",
  weight_version: "v1",
  reward_version: null,
  created_at: "",
  feedback: [],
});
const turn = (role: "user" | "assistant", content: string, id = content) => ({
  id,
  role,
  content,
  ...(role === "assistant" && { completion: completion(id, content) }),
});
const stored: Conversation = {
  id: "c",
  title: "",
  turns: [
    turn("user", "Q1"),
    turn("assistant", "A1"),
    turn("assistant", "A1 again"),
    turn("user", "Q2"),
    turn("assistant", "A2"),
  ],
};

describe("a stored conversation", () => {
  it("shows answers in a row as alternatives, the newest first seen", async () => {
    const { gather } = await import("../src/lib/chat");
    expect(gather(stored).map(({ text, answers, shown }) => [text, answers.length, shown])).toEqual([
      ["Q1", 2, 1],
      ["Q2", 1, 0],
    ]);
  });
  it("asks on with the answer that is shown, and never with the one asked for", async () => {
    const { asMessages, asText, gather } = await import("../src/lib/chat");
    const [first, second] = gather(stored);
    const asked = [{ ...first!, shown: 0 }, second!];
    expect(asMessages(asked).map((message) => `${message.role}: ${message.content}`)).toEqual([
      "user: Q1",
      "assistant: A1",
      "user: Q2",
    ]);
    expect(asText(asked)).toBe("Q1A1Q2");
  });
});
