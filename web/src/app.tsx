import { useEffect, useRef } from "preact/hooks";
import { caller, consoleConfig, setToken, signedOut, withoutRole } from "./api/session";
import { locale, lang, setLang } from "./i18n";
import { t } from "./i18n/common";
import { Connection } from "./live/connection";
import { href, place } from "./router";
import { list } from "./ui/format";
import { theme, type Theme } from "./ui/theme";
import { ChangeView } from "./views/change";
import { CloudsView } from "./views/clouds";
import { HistoryView } from "./views/history";
import { NotebookView } from "./views/notebook";
import { NotebooksView } from "./views/notebooks";
import { Expiry, NoRole, SignIn } from "./views/signin";

/** App is the shell: navigation, connection, and the view of this place. */
export function App() {
  document.documentElement.lang = locale();
  const main = useRef<HTMLElement>(null);
  const { route } = place.value;
  const where = JSON.stringify(route);
  const first = useRef(true);
  useEffect(() => {
    // A reader who came by a link of this page continues in the new view.
    if (first.current) first.current = false;
    else main.current?.focus();
  }, [where]);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); main.current?.focus(); }}>
        {t("skip")}
      </a>
      <header class="top">
        <a class="brand" href={href("/")}>
          notebookd
        </a>
        <nav aria-label={t("navigation")}>
          <Tab path="/" current={route.view === "notebooks"} text={t("notebooks")} />
          <Tab path="/clouds" current={route.view === "clouds"} text={t("clouds")} />
          <Tab path="/history" current={route.view === "history"} text={t("history")} />
          <a href="/docs/">{t("apiDocs")}</a>
        </nav>
        <div class="tools">
          <Who />
          <ThemeButton />
          <button type="button" lang={lang.value === "zh" ? "en" : "zh-CN"} aria-label={t("languageLabel")} onClick={() => setLang(lang.value === "zh" ? "en" : "zh")}>
            {t("language")}
          </button>
        </div>
      </header>
      {signedOut.value || withoutRole.value ? null : <Connection />}
      <Expiry />
      <main id="main" tabIndex={-1} ref={main}>
        {signedOut.value ? <SignIn /> : withoutRole.value ? <NoRole /> : <View />}
      </main>
    </>
  );
}

function View() {
  const { route } = place.value;
  switch (route.view) {
    case "notebooks":
      return <NotebooksView />;
    case "clouds":
      return <CloudsView />;
    case "history":
      return <HistoryView />;
    case "notebook":
      return <NotebookView key={route.name} name={route.name} />;
    case "change":
      return <ChangeView key={route.name} name={route.name} />;
    case "nowhere":
      return (
        <>
          <h1>{t("nowhere")}</h1>
          <a href={href("/")}>{t("toNotebooks")}</a>
        </>
      );
  }
}

function Tab({ path, current, text }: { path: string; current: boolean; text: string }) {
  return (
    <a href={href(path)} aria-current={current ? "page" : undefined}>
      {text}
    </a>
  );
}

function Who() {
  const who = caller.value;
  if (!consoleConfig.value?.auth.required || !who) return null;
  return (
    <>
      <span class="who muted" title={list([who.subject, ...(who.groups ?? [])])}>
        {who.subject}
      </span>
      {who.method === "METHOD_CERTIFICATE" ? null : (
        <button type="button" onClick={() => { setToken(undefined); location.reload(); }}>
          {t("signOut")}
        </button>
      )}
    </>
  );
}

const nextTheme: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };

function ThemeButton() {
  const label = { auto: t("themeAuto"), light: t("themeLight"), dark: t("themeDark") }[theme.value];
  return (
    <button type="button" aria-label={label} title={label} onClick={() => (theme.value = nextTheme[theme.value])}>
      <span aria-hidden="true">{{ auto: "◐", light: "☀", dark: "☾" }[theme.value]}</span>
    </button>
  );
}
