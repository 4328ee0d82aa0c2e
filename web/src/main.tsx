import "./ui/release";
import "./api/answer";
import { render } from "preact";
import { App } from "./app";
import { begin } from "./live/live";
import "./style.css";

const root = document.getElementById("app");
if (root) render(<App />, root);
begin();
