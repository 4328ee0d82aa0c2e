import { locale } from "../i18n";

/** duration is a span of milliseconds in words: "1.5 sec", "3 min 20 sec". */
export function duration(ms: number): string {
  const part = (value: number, unit: "hour" | "minute" | "second", digits = 0) =>
    new Intl.NumberFormat(locale(), { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: digits }).format(value);
  if (ms < 100) return `< ${part(0.1, "second", 1)}`;
  if (ms < 60_000) return part(ms / 1000, "second", ms < 10_000 ? 1 : 0);
  const seconds = Math.round(ms / 1000);
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const parts = h > 0 ? [part(h, "hour"), ...(m > 0 ? [part(m, "minute")] : [])] : [part(m, "minute"), ...(s > 0 ? [part(s, "second")] : [])];
  return parts.join(" ");
}
