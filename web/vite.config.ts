import { defineConfig } from "vite";

// `npm run dev` shows changes at once, in front of a gateway that runs here.
const gateway = "http://127.0.0.1:8000";

export default defineConfig({
  build: {
    outDir: "../src/rewardloop/serve/pages",
    emptyOutDir: true,
    target: "es2022",
    // The policy on content allows no inline script, and a data: URL is no script either.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: true,
  },
  server: {
    proxy: {
      "/api/socket": { target: gateway, ws: true },
      "/api": gateway,
      "/v1": gateway,
    },
  },
});
