import { beforeAll, describe, expect, it, vi } from "vitest";
import type { Completion, Feedback, PolicyNews } from "../src/lib/contract";

// The modules of the page look at the window when they load; what is tested here does not.
beforeAll(() => {
  vi.stubGlobal("document", { addEventListener: () => {}, documentElement: { dataset: {} } });
  vi.stubGlobal("indexedDB", {});
});

const news = (learned: number, live: number, active = 1): PolicyNews => ({
  learned,
  live,
  active,
  paused: false,
});

describe("a judgment", () => {
  it("is learned once a version has come as far, and live once that one is in use", async () => {
    const { stageOf } = await import("../src/lib/policy");
    expect(stageOf("saved", 7, null)).toBe("saved");
    expect(stageOf("saved", 7, news(6, 0))).toBe("saved");
    expect(stageOf("settled", 7, news(7, 0))).toBe("learned");
    expect(stageOf("saved", 7, news(9, 7))).toBe("live");
  });
  it("is learned and no longer live after a roll-back", async () => {
    const { stageOf } = await import("../src/lib/policy");
    expect(stageOf("live", 7, news(9, 3))).toBe("learned");
  });
  it("stays what it is where it never came to the log, or was taken back", async () => {
    const { stageOf } = await import("../src/lib/policy");
    for (const status of ["sending", "waiting", "retracted", "refused"] as const)
      expect(stageOf(status, 7, news(9, 9))).toBe(status);
    expect(stageOf("saved", null, news(9, 9))).toBe("saved");
  });
  it("is shown to move on when the gateway tells of versions", async () => {
    const { recall, saidAbout } = await import("../src/lib/judgments");
    const { policy } = await import("../src/lib/policy");
    const feedback = (seq: number): Feedback => ({
      kind: "comment",
      text: "x",
      id: `f${seq}`,
      seq,
      created_at: "",
      status: "settled",
    });
    recall([{ id: "c", choice: 0, feedback: [feedback(4), feedback(8)] } as unknown as Completion]);
    const shown = () => saidAbout({ completion_id: "c" }).map(({ status, version }) => [status, version]);
    policy.value = news(8, 0, 0);
    expect(shown()).toEqual([
      ["learned", undefined],
      ["learned", undefined],
    ]);
    policy.value = news(8, 4, 3);
    expect(shown()).toEqual([
      ["live", "v3"],
      ["learned", undefined],
    ]);
  });
});
