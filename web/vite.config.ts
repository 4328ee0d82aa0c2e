import { defineConfig } from "vite";

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
  server: { proxy: { "/v1": "http://localhost:8080", "/console.json": "http://localhost:8080" } },
});
