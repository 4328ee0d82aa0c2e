import { langOf, said } from "../i18n/sentences";

/** Said is what the server says in words of its own, in the language that is shown or else as it is. */
export const Said = ({ text }: { text: string }) => <span lang={langOf(text)}>{said(text)}</span>;
