import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

const key = "notebookd.theme";
const stored = localStorage.getItem(key);

/** Light, dark, or as the system is. */
export const theme = signal<Theme>(stored === "light" || stored === "dark" ? stored : "auto");

effect(() => {
  const value = theme.value;
  document.documentElement.dataset["theme"] = value;
  if (value === "auto") localStorage.removeItem(key);
  else localStorage.setItem(key, value);
});
