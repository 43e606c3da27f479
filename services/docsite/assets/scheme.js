// The scheme that was chosen last, here or in the web UI, before anything is painted.
try {
  const chosen = localStorage.getItem("mantine-color-scheme-value");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.scheme = chosen;
} catch {
  // Where the browser keeps nothing, the system's scheme is the one.
}
