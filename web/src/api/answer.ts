// The answer of an issuer, if the page was opened with one. It is taken before the
// router reads the address, which is why main.tsx imports this first.

import { signal } from "@preact/signals";
import { receive } from "./oidc";

export const answer = signal(receive(window, sessionStorage, Date.now()));
