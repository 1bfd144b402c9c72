import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/run.css";
import "./styles/chat.css";
import "./styles/runs.css";
import "./styles/contribute.css";
import { App } from "./app";
import { connect, retryNow } from "./net/store";

connect();
addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") retryNow();
});

render(<App />, document.getElementById("app")!);
