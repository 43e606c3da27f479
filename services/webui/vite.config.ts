import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// What stands in vendor changes with package-lock.json alone, so that a change of ours leaves it in the caches of browsers
// and in the history of this repository.
const kept = /node_modules\/(react|react-dom|scheduler|@mantine|@tanstack|@floating-ui|react-remove-scroll|react-number-format|openapi-fetch|clsx|tslib)\//;
// What lists alone need is no part of what is loaded first.
const tables = /node_modules\/@tanstack\/(react-table|table-core|react-virtual|virtual-core)\//;

export default defineConfig({
  base: "/ui/",
  plugins: [react()],
  resolve: { preserveSymlinks: true, alias: { "~": fileURLToPath(new URL("./src", import.meta.url)) } },
  server: { proxy: { "/v1": process.env.MARCHPROXY_API ?? "http://127.0.0.1:8000" } },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome125", "firefox125", "safari17.5"], // which know light-dark()
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.txt" }, // of what is in the bundle
    chunkSizeWarningLimit: 2000,
    rollupOptions: {
      output: { manualChunks: (id: string) => (kept.test(id) && !tables.test(id) ? "vendor" : undefined) },
    },
  },
  worker: { format: "es" },
});
