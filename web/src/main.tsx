import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/frame.css";
import "./styles/talk.css";
import "./styles/look.css";
import { App } from "./app";
import { firstLanguage, setLanguage } from "./lib/i18n";
import { refresh } from "./lib/session";
import "./lib/theme";

setLanguage(firstLanguage());
void refresh();
render(<App />, document.getElementById("app")!);
