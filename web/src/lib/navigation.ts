// Ways from one screen to another that more than one place offers.

import { focusComposer } from "../parts/composer";
import { show } from "./chat";
import { go } from "./router";

export function newConversation(): void {
  void show(null);
  go("/");
  setTimeout(focusComposer);
}
