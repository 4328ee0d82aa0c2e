import { defineConfig, loadEnv } from "vite";

// The server that `npm run dev` shows: make run has its door there.
const server = loadEnv("", ".", "NOTEBOOKD_")["NOTEBOOKD_URL"] ?? "http://localhost:8080";

// What is built is committed, so it has to be the same bytes everywhere.
export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // data: URLs are nothing that the page's policy lets in
    modulePreload: { polyfill: false }, // it is an inline script
    sourcemap: false,
    emptyOutDir: true,
  },
  // Beside `make run`: npm run dev
  server: { proxy: { "/v1": server, "/console.json": server } },
});
