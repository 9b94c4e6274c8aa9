// What the gateway tells of versions of the policy, and of the learner that makes them.
import { signal } from "@preact/signals";
import type { PolicyNews, Progress, Status } from "./contract";
import { socket } from "./socket";

export const policy = signal<PolicyNews | null>(null);
export const learner = signal<Progress | null>(null);

/** How far a judgment has come that stands at `seq` in the log. What was not settled has not been looked at yet. */
export function stageOf(status: Status, seq: number | null, news: PolicyNews | null): Status {
  const moves: Status[] = ["saved", "settled", "learned", "live"];
  if (!news || seq === null || !moves.includes(status)) return status;
  if (seq <= news.live) return "live";
  if (seq <= news.learned) return "learned";
  return status;
}

socket.listen((message) => {
  const { type, s: _s, ...told } = message;
  if (type === "policy") policy.value = told as PolicyNews;
  if (type === "learner") learner.value = told as Progress;
});
